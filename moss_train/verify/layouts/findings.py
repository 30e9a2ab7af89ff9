"""What the comparison of a trial found, the tolerances it must keep, and both as plain JSON. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

TOLERANCES = {
    "loss": 1e-6,
    "gradients": 1e-5,
    "norm": 1e-6,
    "sgd": 1e-6,
    "adamw": 1e-5,
    "log": 1e-5,
}
"""Largest relative difference in fp32: loss and global gradient norm of every update, each gradient tensor of the first update,
each weight after the updates (in norm), and the log's sums by token class and dataset."""
BF16_TOLERANCES = {"loss": 0.02, "norm": 0.05, "gradients": 0.2}
"""Wide bounds in bf16, where layouts round differently: they catch a missing sum, not a rounding. `gradients` here is of all
tensors together."""

BF16_REFERENCE = "bf16 against fp32"
"""Stands for a layout where both runs are on one rank."""


class Difference(NamedTuple):
    """A relative difference and where it is."""

    value: float
    where: str


@dataclass
class Findings:
    """Differences of one trial from the same trial on one rank."""

    loss: Difference
    norm: Difference
    weights: Difference
    log: Difference
    planned: list[list[int]]
    """Frames of each rank that the step says to encode, by update."""
    towers: list[list[int]]
    """Frames that each rank's tower really took, repetitions included."""
    again: list[int]
    """Frames that rank 0 encoded a second time, by update."""
    distinct: list[int]
    """Different frames that all towers together took, by update."""
    expected_frames: list[int]
    """The same on one rank."""
    gradients: Difference | None = None
    all_gradients: float | None = None
    """All gradients of the first update as one vector."""
    trained: int | None = None
    """Gradient tensors that are not zero."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Findings:
        """From `as_json`'s answer."""
        values = dict(content)
        for name in ("loss", "norm", "weights", "log", "gradients"):
            if values[name] is not None:
                values[name] = Difference(*values[name])
        return cls(**values)

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass
class TrialResult:
    """Findings of one trial in one layout, or why there are none."""

    layout: str
    ranks: int
    preset: str
    optimizer: str
    dtype: str
    findings: Findings | None = None
    error: str = ""
    modules: str = "torch"
    made_of: str = ""
    """What the decoder's layers, their cross-attention and the tower really were."""
    skipped: bool = False
    """Whether there was no time for it: then it neither passes nor fails."""
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)
    """Why it fails; empty if it passes."""

    def judge(self) -> TrialResult:
        """Fills `reasons`."""
        if self.skipped:
            return self
        if self.findings is None:
            self.reasons = [self.error]
            return self
        found = self.findings
        values: dict[str, Difference | None] = {"loss": found.loss, "norm": found.norm}
        if self.dtype == "bf16":
            bounds = BF16_TOLERANCES
            values["gradients"] = None if found.all_gradients is None else Difference(found.all_gradients, "all tensors")
        else:
            bounds = TOLERANCES
            values |= {"gradients": found.gradients, "log": found.log, self.optimizer: found.weights}
        self.reasons = [
            f"{name} {value.value:.1e} > {bounds[name]:g} ({value.where})"
            for name, value in values.items()
            if value is not None and not value.value <= bounds[name]
        ]
        if self.optimizer == "sgd" and found.gradients is None:
            self.reasons.append("no gradients were compared")
        if found.trained == 0:
            self.reasons.append("no gradient at all")
        if found.distinct != found.expected_frames:
            self.reasons.append(f"{found.distinct} different frames were encoded, not {found.expected_frames}")
        if [sum(ranks) for ranks in found.planned] != found.expected_frames:
            self.reasons.append(f"frames of the first pass by rank are {found.planned}, together not {found.expected_frames}")
        return self

    def as_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)
