"""Printing a stream as it happens, line by line, on whatever the output is."""

from __future__ import annotations

import io
import os
import threading
import unicodedata
from contextlib import suppress
from typing import TextIO

from inference.evaluation.schema import TraceEvent
from model.errors import InputError


class TerminalSink:
    """Writes events as lines: one per utterance with the second at which it began, one per run of silence.

    Args:
        out: where to.

    Raises:
        InputError: while writing, where the reader of a pipe has gone.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._bare = out.isatty()
        self._lock = threading.RLock()  # a person's orders are answered from another thread
        self._state = ""
        """What the open line holds: '' (nothing is open), `speech` or `silence`."""

    def __call__(self, event: TraceEvent) -> None:
        with self._lock:
            try:
                self._write(event)
            except BrokenPipeError:
                raise self._abandoned() from None

    def _write(self, event: TraceEvent) -> None:
        if event.kind == "token" and event.text:
            self._open("speech", event.t)
            self._out.write(printable(event.text) if self._bare else event.text)
        elif event.kind == "silence":
            self._open("silence", event.t, event.text or "<|silence|>")
        elif line := line_of(event):
            self.write_line(line)
        self._out.flush()

    def write_line(self, text: str) -> None:
        """A line of its own."""
        with self._lock:
            try:
                self.break_line()
                self._out.write(f"{text}\n")
                self._out.flush()
            except BrokenPipeError:
                raise self._abandoned() from None

    def close(self, *, whole: bool) -> None:
        self.break_line()

    def _abandoned(self) -> InputError:
        """Nobody reads any more: what is still buffered goes nowhere, also at the end of the program."""
        self._state = ""
        with suppress(OSError, ValueError, io.UnsupportedOperation):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._out.fileno())
            os.close(nowhere)
        return InputError("whoever read the output has gone; let it read to the end, or write to files with --trace and --srt")

    def break_line(self) -> None:
        """End the open line, so that what is printed next begins on a line of its own."""
        if self._state:
            self._out.write("\n")
            self._out.flush()
        self._state = ""

    def _open(self, state: str, t: float, text: str = "") -> None:
        if self._state == state:
            return
        self.break_line()
        self._out.write(f"{clock_of(t)} {text}")
        self._state = state


def printable(text: str) -> str:
    """Text that moves no cursor and rings no bell, whatever a model says: control characters become U+FFFD."""
    return "".join(c if c in "\n\t" or unicodedata.category(c) != "Cc" else "\ufffd" for c in text)


def clock_of(t: float) -> str:
    """Stream time as it stands before a line."""
    return f"[{t:8.2f} s]"


def line_of(event: TraceEvent) -> str:
    """The line that tells of an event other than speech and silence; '' where there is nothing to tell."""
    told = {
        "prompt": f"user: {event.text}",
        "stop": "(stopped)",
        "reset": "(forgotten)",
        "turn_interrupted": "(interrupted)" if event.reason != "stop" else "",
        "frame_dropped": f"(frame {event.frame} dropped: {event.reason})",
        "frame_rejected": f"(frame {event.frame} rejected: {event.reason})",
        "end": f"(end: {event.reason})",
    }.get(event.kind, "")
    return f"{clock_of(event.t)} {told}" if told else ""
