"""A measured case beside what is predicted of it: seconds by phase and of the step, and the most memory at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from moss_train.planning.calibration.results import Case
from moss_train.planning.flops import Gpu
from moss_train.planning.hardware import Cluster
from moss_train.planning.memory import plan_memory
from moss_train.planning.rates import Row
from moss_train.planning.step_time import step_time


@dataclass(frozen=True)
class Pair:
    """A number twice."""

    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Of the prediction, as a share of what was measured."""
        return self.predicted / self.measured - 1


@dataclass(frozen=True)
class Compared:
    """One case."""

    name: str
    phases: dict[str, Pair]
    """Seconds of the phases that ran."""
    step: Pair | None
    """Seconds."""
    memory: Pair | None
    """Bytes."""

    def worst(self) -> float:
        """The largest error, without sign, of step and memory; of the phases where only these were run."""
        pairs = [pair for pair in (self.step, self.memory) if pair is not None]
        if self.step is None:
            pairs += self.phases.values()
        return max((abs(pair.error) for pair in pairs), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""

        def plain(pair: Pair | None) -> dict[str, float] | None:
            return None if pair is None else {**vars(pair), "error": pair.error}

        return {
            "name": self.name, "phases": {phase: plain(pair) for phase, pair in self.phases.items()}, "step": plain(self.step),
            "memory": plain(self.memory),
        }  # fmt: skip


def predicted_seconds(case: Case, gpu: Gpu, row: Row) -> dict[str, float]:
    """Phase -> predicted seconds on one GPU.

    Args:
        gpu: what the vendor states for it.
        row: what it reaches.
    """
    found = step_time(case.config, 1, case.work, Cluster(gpu, row=row), len(case.samples))
    return {
        "encode": found.encode, "decode": found.decode, "return": found.back, "optimizer": found.update if case.updates else 0.0,
    }  # fmt: skip


def predicted_peak(case: Case) -> int:
    """Predicted bytes allocated at most at once."""
    stage = plan_memory(case.config, 1, case.load).stages[0]
    if case.updates:
        return stage.peak
    return max(
        sum(size for kind, size in kinds.items() if kind != "optimizer")
        for phase, kinds in stage.phases.items()
        if phase != "update"
    )


def compare(case: Case, gpu: Gpu, row: Row) -> Compared:
    """Hold a case against its prediction."""
    seconds = predicted_seconds(case, gpu, row)
    return Compared(
        case.name,
        {phase: Pair(seconds[phase], measured) for phase, measured in case.seconds.items()},
        None if case.step is None else Pair(sum(seconds.values()), case.step),
        None if case.peak is None else Pair(predicted_peak(case), case.peak),
    )
