"""Time for sessions: virtual, which jumps and makes runs exact, or wall, which waits."""

from __future__ import annotations

import threading
import time
from typing import Protocol


class Clock(Protocol):
    """Seconds since the stream began."""

    def now(self) -> float:
        """The present moment."""
        ...

    def wait_until(self, t: float, wake: threading.Event) -> None:
        """Return at `t`, or earlier when `wake` is set by another thread."""
        ...


class VirtualClock:
    """Moves only when told to; computing takes no time on it, so a run depends on nothing but its input."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wait_until(self, t: float, wake: threading.Event) -> None:
        """Jump to `t`; never back."""
        self._now = max(self._now, t)


class WallClock:
    """Real seconds, counted from `start` (or from the making of the clock)."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def start(self) -> None:
        """Make the present moment 0."""
        self._begin = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self._begin

    def wait_until(self, t: float, wake: threading.Event) -> None:
        """Sleep without polling."""
        remaining = t - self.now()
        if remaining > 0:
            wake.wait(min(remaining, threading.TIMEOUT_MAX))
