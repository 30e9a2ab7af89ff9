"""Time for sessions: virtual, which jumps and makes runs exact, or wall, which waits."""

from __future__ import annotations

import math
import threading
import time
from typing import Protocol

from inference.session.costs import Costs


class Clock(Protocol):
    """Seconds since the stream began."""

    def now(self) -> float:
        """The present moment."""
        ...

    def wait_until(self, t: float, wake: threading.Event) -> None:
        """Return at `t`, or earlier when `wake` is set by another thread."""
        ...

    def wall(self) -> float | None:
        """Seconds since 1970, or None on a clock that has nothing to do with the world's."""
        ...


class VirtualClock:
    """Moves only when told to, so a run depends on nothing but its input. Computing takes no time on it, or what `costs` say.

    Args:
        now: where it stands; a restored session goes on at the second at which it was saved.
        costs: seconds that steps and frames take; None: none.
    """

    def __init__(self, now: float = 0.0, costs: Costs | None = None) -> None:
        self._now = now
        self.costs = costs

    def now(self) -> float:
        return self._now

    def wait_until(self, t: float, wake: threading.Event) -> None:
        """Jump to `t`; never back. Where `t` is endless, time stands still until `wake` is set."""
        if t == math.inf:
            wake.wait()
        else:
            self._now = max(self._now, t)

    def spend(self, seconds: float) -> None:
        """Something was computed for so long."""
        self._now += seconds

    def wall(self) -> float | None:
        return None


class WallClock:
    """Real seconds, counted from `start` (or from the making of the clock).

    Args:
        now: the reading at the start; a restored session goes on at the second at which it was saved.
    """

    def __init__(self, now: float = 0.0) -> None:
        self._first = now
        self._begin = time.monotonic()

    def start(self) -> None:
        """Make the present moment the first."""
        self._begin = time.monotonic()

    def now(self) -> float:
        return self._first + time.monotonic() - self._begin

    def wait_until(self, t: float, wake: threading.Event) -> None:
        """Sleep without polling."""
        remaining = t - self.now()
        if remaining > 0:
            wake.wait(min(remaining, threading.TIMEOUT_MAX))

    def wall(self) -> float | None:
        return time.time()
