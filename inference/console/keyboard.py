"""Reading what a person types: key by key from a terminal, line by line from anything else."""

from __future__ import annotations

import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

from inference.console.intents import Intent, interpret
from inference.console.line_editor import LineEditor

_ESCAPE_SECONDS = 0.05
"""The other bytes of a key's sequence follow an escape sooner than this."""

Act = Callable[[Intent | None], None]


class LineInput:
    """A thread that reads lines until the input ends.

    Args:
        lines: what is read.
        act: called with every intent.
        on_end: called when the input is over.
    """

    def __init__(self, lines: TextIO, act: Act, on_end: Callable[[], None]) -> None:
        self._lines, self._act, self._on_end = lines, act, on_end

    def start(self) -> None:
        """Begin to read. The thread is a daemon: nothing can wake it from a read."""
        threading.Thread(target=self._run, name="typed lines", daemon=True).start()

    def stop(self) -> None:
        """Nothing to undo."""

    def _run(self) -> None:
        try:
            for line in self._lines:
                self._act(interpret(line))
        finally:
            self._on_end()


class KeyInput:
    """A thread that reads keys of a terminal, which gives them out one by one meanwhile; it waits without polling.

    Args:
        terminal: the terminal's file descriptor.
        act: called with every intent.
        on_change: called when the line that is being typed changed.

    Attributes:
        editor: the line.
    """

    def __init__(self, terminal: int, act: Act, on_change: Callable[[], None]) -> None:
        self.editor = LineEditor()
        self._terminal, self._act, self._on_change = terminal, act, on_change
        self._wake, self._wakened = os.pipe()
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)
        self._before: Any = None

    def start(self) -> None:
        """Switch the terminal over and begin to read."""
        import termios
        import tty

        self._before = termios.tcgetattr(self._terminal)
        tty.setcbreak(self._terminal)  # Ctrl-C still ends the program
        self._thread.start()

    def stop(self) -> None:
        """End the thread and give the terminal back as it was."""
        import termios

        os.write(self._wakened, b".")
        if self._thread.ident is not None:
            self._thread.join(2.0)
        if self._before is not None:
            termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._before)
            self._before = None

    def _run(self) -> None:
        while True:
            wait = _ESCAPE_SECONDS if self.editor.undecided else None
            ready, _, _ = select.select([self._terminal, self._wake], [], [], wait)
            if self._wake in ready:
                return
            if not ready:
                intents = self.editor.settle()
            else:
                data = os.read(self._terminal, 1024)
                if not data:
                    return
                intents = self.editor.feed(data)
            self._on_change()
            for intent in intents:
                self._act(intent)


def is_terminal(stream: TextIO) -> bool:
    """Whether keys can be read one by one from it."""
    try:
        return stream.isatty() and sys.platform != "win32"
    except ValueError:  # closed
        return False
