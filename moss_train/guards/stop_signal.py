"""SIGTERM and SIGUSR1 (a scheduler's warning) ask for a checkpoint and a clean end after the current step."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

from moss_train.monitors.base import Monitor
from moss_train.signals import Signals


class StopSignal(Monitor):
    """`requested` becomes true on the rank that gets the signal; the step's statistics tell the others."""

    name = "stop_signal"
    every_rank = True
    _SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def signals(self) -> Signals:
        """What this rank tells the others."""
        return Signals(stop=int(self.requested))

    def started(self, step: int, steps: int) -> None:
        for number in self._SIGNALS:
            self._before[number] = signal.signal(number, self._handle)

    def finished(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
