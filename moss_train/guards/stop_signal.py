"""SIGTERM, SIGINT and SIGUSR1 (a scheduler's warning) ask for a checkpoint and a clean end after the current step.

They are noticed by a thread of their own, so that a second one, or a deadline, ends a process whose main thread waits for others.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any

from moss_train.guards.cause import EXIT_NOT_IN_TIME, end_process
from moss_train.monitors.base import Monitor
from moss_train.signals import Signals

_SAME_SECONDS = 0.5
"""A signal that comes twice within it is one: a terminal's Ctrl-C reaches a rank by itself and through its launcher."""


class StopSignal(Monitor):
    """`requested` becomes true on the rank that gets the signal; the step's statistics tell the others.

    Args:
        seconds: time for the step and the checkpoint; 0 for no limit.
        tell: tells all ranks why this one ends, and returns the exit code.
    """

    name = "stop_signal"
    every_rank = True
    _SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self, seconds: float = 0.0, tell: Callable[[str, int], int] | None = None) -> None:
        self.requested = False
        self._seconds, self._tell = seconds, tell
        self._step = 0
        self._saved: int | None = None
        self._before: dict[int, Any] = {}
        self._ends: tuple[int, int] | None = None
        self._wakeup_before = -1

    def signals(self) -> Signals:
        """What this rank tells the others."""
        return Signals(stop=int(self.requested))

    def started(self, step: int, steps: int) -> None:
        self._step = step
        self._saved = step or None
        read, write = os.pipe()
        os.set_blocking(write, False)
        self._ends = (read, write)
        self._wakeup_before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in self._SIGNALS:
            self._before[number] = signal.signal(number, self._handle)
        threading.Thread(target=self._listen, args=(read,), name="moss_signals", daemon=True).start()

    def stepped(self, record: dict[str, Any]) -> None:
        self._step = record["step"]

    def saved(self, event: Any) -> None:
        if event.kind == "published":
            self._saved = event.step

    def finished(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:  # else the process has failed, see `outlast_signals`
                signal.signal(number, handler)
        self._before = {}
        if self._ends is not None:
            signal.set_wakeup_fd(self._wakeup_before)
            os.close(self._ends[1])  # ends the thread, which closes the other end
            self._ends = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Runs only when the main thread does; the thread has noticed before."""
        self.requested = True

    def _listen(self, read: int) -> None:
        """A byte, the signal's number, for each signal that Python handles."""
        asked: float | None = None
        last: dict[int, float] = {}
        while numbers := os.read(read, 64):
            for number in numbers:
                now = time.monotonic()
                if number not in self._SIGNALS or now - last.get(number, -1e9) < _SAME_SECONDS:
                    continue
                last[number] = now
                self.requested = True
                if asked is None:
                    asked = now
                    if self._seconds:
                        threading.Thread(target=self._deadline, name="moss_deadline", daemon=True).start()
                elif number != signal.SIGUSR1:
                    self._end_at_once(number)
        with suppress(OSError):
            os.close(read)

    def _end_at_once(self, number: int) -> None:
        if os.environ.get("RANK", "0") == "0":
            name = signal.Signals(number).name
            print(f"moss: ended by a second {name} before it saved; {self._stands()}", file=sys.stderr, flush=True)
        end_process(128 + number)

    def _stands(self) -> str:
        return "there is no checkpoint yet" if self._saved is None else f"the checkpoint of step {self._saved} stands"

    def _deadline(self) -> None:
        time.sleep(self._seconds)
        if self._ends is None:
            return
        sentence = f"the run was told to end and had not saved within guard.stop_seconds = {self._seconds:g}; {self._stands()}"
        code = EXIT_NOT_IN_TIME
        if self._tell is not None:
            code = self._tell(sentence, code)
        else:
            print(f"moss: error: {sentence}", file=sys.stderr, flush=True)
        end_process(code)


def outlast_signals() -> None:
    """From now on a failed rank of several hosts lets SIGTERM and SIGUSR1 pass: it ends by itself, in seconds, once it knows why.

    `srun --kill-on-bad-exit` ends the others as soon as it sees one end: before any of them could say which rank was lost.
    On one host the launcher sees that, and ends the others at once.
    """
    size = os.environ.get("WORLD_SIZE", "1")
    if int(size) > int(os.environ.get("LOCAL_WORLD_SIZE", size)):
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
