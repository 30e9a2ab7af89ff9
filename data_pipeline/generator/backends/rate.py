"""Limits on requests and tokens a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class RateLimit:
    """Lets so many units a minute pass, evenly; several threads may wait at once.

    A request takes its place in a queue of time at once and then sleeps until its turn comes, so nobody overtakes and waiting
    costs no CPU. A burst of a second's worth passes without waiting.

    Args:
        per_minute: 0 means any number.
    """

    def __init__(
        self,
        per_minute: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._next = clock()

    def wait(self, units: float = 1.0) -> float:
        """Wait for the turn of so many units; returns the seconds waited."""
        if not self._seconds_each:
            return 0.0
        with self._lock:
            now = self._clock()
            start = max(self._next, now - 1.0)
            self._next = start + units * self._seconds_each
        delay = max(0.0, start - now)
        if delay:
            self._sleep(delay)
        return delay
