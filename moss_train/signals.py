"""Small integers that any rank may raise and that all ranks see, summed, in the same step.

They travel in the step's statistics, so that what depends on one rank's clock, disk or operating system is decided by all
ranks alike and costs no collective of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Signals:
    """Raised on a rank: 0 or 1 each. After the reduction: how many ranks raised it."""

    stop: int = 0
    """Told to end after this step."""
    save: int = 0
    """Wants a checkpoint after this step."""
    written: int = 0
    """Has written its part of the pending checkpoint."""
    failed: int = 0
    """Could not write its part of the pending checkpoint."""

    def __add__(self, other: Signals) -> Signals:
        return Signals(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> list[int]:
        """In the order of the fields."""
        return list(dataclasses.astuple(self))

    @staticmethod
    def of(values: Iterable[float]) -> Signals:
        """From the summed vector."""
        return Signals(*(round(value) for value in values))


SIGNALS = len(dataclasses.fields(Signals))
