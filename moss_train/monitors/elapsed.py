"""How long the run has taken over all its processes, and how long it will still take."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from moss_train.monitors.base import Monitor, Update

WINDOW = 100
"""Steps whose mean stands for those to come."""


class TimeLeft:
    """Foretells from the steps of this process. Its first is left out: it compiles, fills caches, starts readers."""

    def __init__(self) -> None:
        self._steps: deque[float] = deque(maxlen=WINDOW)
        self._between = 0.0
        self._count = 0

    def add(self, step_seconds: float, between_seconds: float | None) -> None:
        """Count a step.

        Args:
            between_seconds: from the end of the step before to its begin: evaluations, checkpoints, monitors. None for the first.
        """
        if between_seconds is not None:
            self._steps.append(step_seconds)
            self._between += between_seconds
            self._count += 1

    def seconds(self, steps: int) -> float | None:
        """For so many steps: the recent ones' mean, and the mean of all time between steps. None without a step to go by."""
        if not self._count:
            return None
        return steps * (sum(self._steps) / len(self._steps) + self._between / self._count)


class Elapsed(Monitor):
    """Declared state: seconds of the run so far; the time between two processes of a run does not count.

    Args:
        clock: seconds from anywhere.
    """

    name = "elapsed"

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin = clock()
        self._before = 0.0
        self._last: float | None = None
        self._steps = 0
        self._left = TimeLeft()

    def started(self, step: int, steps: int) -> None:
        self._begin, self._steps = self._clock(), steps

    def measured(self, update: Update) -> dict[str, Any]:
        now = self._clock()
        between = None if self._last is None else max(0.0, now - self._last - update.seconds)
        self._last = now
        self._left.add(update.seconds, between)
        record: dict[str, Any] = {"elapsed_seconds": self._before + now - self._begin}
        if between is not None:
            record["between_seconds"] = between
        left = self._left.seconds(self._steps - update.step)
        return record | ({} if left is None else {"eta_seconds": left})

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._before + self._clock() - self._begin}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._before = float(state["seconds"])
