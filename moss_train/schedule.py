"""Learning-rate schedules: pure functions of the number of updates done."""

from __future__ import annotations

import math
from dataclasses import dataclass

from model.errors import InputError


@dataclass(frozen=True)
class LearningRate:
    """Learning rate of update `u` (0 for the first) out of `steps`."""

    schedule: str
    """cosine: linear warm-up, cosine decay to `minimum`. constant: linear warm-up, then the peak.
    reference_log_linear: logarithmic warm-up, linear decay to 0, the first two updates at 0, as the published runs did."""
    peak: float
    minimum: float
    warmup_ratio: float
    steps: int

    def __post_init__(self) -> None:
        if not 0.0 <= self.warmup_ratio <= 1.0:
            raise InputError(f"stage.warmup_ratio is {self.warmup_ratio}; it must lie within 0..1")
        if self.minimum > self.peak:
            raise InputError(f"stage.min_learning_rate {self.minimum} is above the peak {self.peak}; lower it")

    def __call__(self, update: int) -> float:
        """Learning rate of one update.

        Args:
            update: number of updates done before it.
        """
        if self.schedule == "reference_log_linear":
            return self._reference(update)
        warmup = math.ceil(self.warmup_ratio * self.steps)
        if update < warmup:
            return self.peak * (update + 1) / warmup
        if self.schedule == "constant":
            return self.peak
        done = min(1.0, (update - warmup) / max(1, self.steps - warmup))
        return self.minimum + (self.peak - self.minimum) * 0.5 * (1.0 + math.cos(math.pi * done))

    def _reference(self, update: int) -> float:
        warmup = max(2, math.ceil(self.warmup_ratio * self.steps))
        done = update - 1
        if done < 0:
            return 0.0
        if done < warmup:
            return self.peak * math.log(done + 1) / math.log(warmup)
        return self.peak * max(0.0, (self.steps - done) / max(1, self.steps - warmup))
