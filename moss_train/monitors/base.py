"""The calls that a trainer makes on every monitor, and what it tells them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:  # a run folder's page is drawn without torch and megatron-core
    from moss_train.feed.feed import Delivery
    from moss_train.statistics import StepStatistics


@dataclass
class Update:
    """One step, as monitors see it before its record is complete."""

    step: int
    """From 1: the number of the global batch."""
    data: Delivery
    statistics: StepStatistics
    grad_norm: float
    """Global norm before clipping; equal on all ranks."""
    learning_rates: dict[str, float]
    """By part: decoder, vision, and by name what `optimizer.modules` multiplies."""
    applied: bool = True
    """Whether the weights were changed; known from `measured` on."""
    rewound_to: int | None = None
    """Step of the checkpoint whose weights were taken back instead; None for none."""
    seconds: float = 0.0
    """Of the whole step on this rank; known from `measured` on."""
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds of this rank by part of the step; known from `measured` on."""


@dataclass(frozen=True)
class SaveEvent:
    """News of a checkpoint."""

    step: int
    """The step that it holds."""
    kind: str
    """begun | published | failed"""
    stall_seconds: float = 0.0
    """How long the loop was blocked."""
    path: Path | None = None
    reason: str = ""


class Monitor:
    """Does nothing; a monitor overrides what it needs. Records are plain JSON values and equal on all ranks."""

    name: ClassVar[str] = ""
    """Under which its state is kept in checkpoints; monitors with a state need one."""
    every_rank: ClassVar[bool] = False
    """Whether it lives on every rank (collectives are allowed then) or on the first only."""

    def started(self, step: int, steps: int) -> None:
        """Before the first update of this process.

        Args:
            step: updates done by earlier processes of the run.
            steps: updates of the whole run.
        """

    def begun(self, step: int) -> None:
        """A step begins: its data are not read yet.

        Args:
            step: its number, from 1.
        """

    def prepared(self, update: Update) -> None:
        """Gradients are complete and unscaled, not clipped and not applied."""

    def measured(self, update: Update) -> dict[str, Any]:
        """After the update: values that it adds to the record. Only the first rank's are written."""
        return {}

    def stepped(self, record: dict[str, Any]) -> None:
        """After an update, with the complete record; `record["step"]` counts from 1."""

    def evaluated(self, record: dict[str, Any]) -> None:
        """After an evaluation."""

    def wants_save(self, step: int) -> bool:
        """After the evaluations of a step: whether its state is worth a checkpoint. The same on all ranks, which all have it."""
        return False

    def saved(self, event: SaveEvent) -> None:
        """A checkpoint was begun, published, or could not be written."""

    def finished(self) -> None:
        """At the end, also when the run ends with an error."""

    def state_dict(self) -> dict[str, Any] | None:
        """What a continued run needs: plain JSON, equal on all ranks that have the monitor; None for nothing."""
        return None

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state; called before `started`."""
