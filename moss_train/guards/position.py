"""Where the loop of this rank is, and how long it may stay there: what the watchdog looks at."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple


class Place(NamedTuple):
    """One part of the loop."""

    phase: str
    """start | data | step | after the step | evaluation | checkpoint; empty where nothing is watched."""
    step: int
    since: float
    """time.monotonic() at its begin."""
    limit: float
    """Seconds that it may take; infinite for no limit."""


_NOWHERE = Place("", 0, 0.0, float("inf"))


class Position:
    """Told by the trainer, read by another thread: the place is replaced whole, so no lock is needed.

    Args:
        hang_seconds: limit of a step; 0 for none.
        slow_seconds: limit of start, first step, evaluation and checkpoint.
        data_seconds: what a wait for data may take beyond `hang_seconds`.
    """

    def __init__(self, hang_seconds: float, slow_seconds: float, data_seconds: float) -> None:
        self._hang, self._slow, self._data = hang_seconds, slow_seconds, data_seconds
        self._place = _NOWHERE
        self._first_step: int | None = None
        self.part: Callable[[], str] = lambda: ""
        """Says which part of a step runs."""

    @property
    def place(self) -> Place:
        return self._place

    @property
    def phase(self) -> str:
        """With the part of the step."""
        phase = self._place.phase
        return (self.part() or phase) if phase == "step" else phase

    def at(self, phase: str, step: int) -> None:
        """A part of the loop begins."""
        if phase == "step" and self._first_step is None:
            self._first_step = step
        slow = phase in ("start", "evaluation", "checkpoint") or (phase == "step" and step == self._first_step)
        limit = self._slow if slow else self._hang + self._data * (phase == "data")
        self._place = Place(phase, step, time.monotonic(), limit if self._hang else float("inf"))

    def rest(self) -> None:
        """Nothing is watched until the next part."""
        self._place = _NOWHERE

    def overdue(self, now: float) -> bool:
        """Whether the place has been kept for longer than it may."""
        return now - self._place.since > self._place.limit

    def forgive(self, seconds: float) -> None:
        """The whole process stood still for so long (a stopped job, a sleeping machine): that is no hang."""
        place = self._place
        if place.phase:
            self._place = place._replace(since=place.since + seconds)
