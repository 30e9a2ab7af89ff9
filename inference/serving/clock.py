"""One virtual time for many sessions: it stands still while any of them has something to compute."""

from __future__ import annotations

import math
import threading


class SharedVirtualClock:
    """A clock that only the pool of sessions moves. No `VirtualClock`: a session moves that one by itself when it waits.

    Args:
        step_seconds: what a round of the pool takes; 0: computing takes no time.
    """

    def __init__(self, step_seconds: float = 0.0) -> None:
        self.step_seconds = step_seconds
        self._now = 0.0

    def now(self) -> float:
        """Seconds since the pool began."""
        return self._now

    def wait_until(self, t: float, wake: threading.Event) -> None:
        """Jump to `t`, never back; where `t` is endless, wait for `wake`."""
        if t == math.inf:
            wake.wait()
        else:
            self._now = max(self._now, t)

    def spend_round(self) -> None:
        """A round was computed."""
        self._now += self.step_seconds

    def wall(self) -> float | None:
        """It has nothing to do with the world's time."""
        return None
