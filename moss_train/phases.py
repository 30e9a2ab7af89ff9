"""How long the parts of a step took on this rank: encode, decode, return, optimizer, data and whatever else is named."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Phases:
    """Seconds by name since the last `take`. On a GPU they are the host's: kernels run on behind it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time inside towards a name."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begin

    def take(self) -> dict[str, float]:
        """What was counted, and begin anew."""
        seconds, self._seconds = self._seconds, {}
        return seconds
