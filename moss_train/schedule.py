"""Learning-rate schedules: pure functions of the number of updates done."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import InputError

if TYPE_CHECKING:
    from moss_train.config.schema import StageConfig


@dataclass(frozen=True)
class LearningRate:
    """Learning rate of update `u` (0 for the first) out of `steps`."""

    schedule: str
    """cosine: linear warm-up, cosine decay to `minimum`. wsd: linear warm-up, the peak, decay to `minimum` in the last
    `decay_ratio` of the steps. constant: linear warm-up, then the peak. reference_log_linear: logarithmic warm-up, linear decay
    to 0, the first two updates at 0, as the published runs did."""
    peak: float
    minimum: float
    warmup_ratio: float
    steps: int
    decay_ratio: float = 0.2
    decay_shape: str = "linear"
    """linear | cosine | sqrt (1 - sqrt of the share done): of the decay of wsd."""

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
        if self.schedule == "wsd":
            return self._decay(update, warmup)
        done = min(1.0, (update - warmup) / max(1, self.steps - warmup))
        return self._between(0.5 * (1.0 + math.cos(math.pi * done)))

    def _between(self, height: float) -> float:
        return self.minimum + (self.peak - self.minimum) * height

    def _decay(self, update: int, warmup: int) -> float:
        """The stable part and the decay, whose last update is at the minimum."""
        length = min(math.ceil(self.decay_ratio * self.steps), self.steps - warmup)
        done = update - (self.steps - length) + 1
        if done <= 0:
            return self.peak
        if done >= length:
            return self.minimum
        share = done / length
        shapes = {"linear": 1.0 - share, "cosine": 0.5 * (1.0 + math.cos(math.pi * share)), "sqrt": 1.0 - math.sqrt(share)}
        return self._between(shapes[self.decay_shape])

    def _reference(self, update: int) -> float:
        warmup = max(2, math.ceil(self.warmup_ratio * self.steps))
        done = update - 1
        if done < 0:
            return 0.0
        if done < warmup:
            return self.peak * math.log(done + 1) / math.log(warmup)
        return self.peak * max(0.0, (self.steps - done) / max(1, self.steps - warmup))


def stage_rates(stage: StageConfig, steps: int) -> dict[str, LearningRate]:
    """The schedules of a stage by part: decoder, and vision, which may have a peak of its own.

    Raises:
        InputError: values that do not go together.
    """
    vision = stage.learning_rate if stage.vision_learning_rate is None else stage.vision_learning_rate
    return {
        part: LearningRate(
            stage.schedule, peak, min(stage.min_learning_rate, peak), stage.warmup_ratio, steps, stage.decay_ratio,
            stage.decay_shape,
        )
        for part, peak in (("decoder", stage.learning_rate), ("vision", vision))
    }  # fmt: skip
