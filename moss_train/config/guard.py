"""The `guard` group: what is done about bad numbers, hanging, lost and slow ranks."""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.config.checks import above_zero, at_least, finite_seconds, one_of

POLICIES = ("stop", "skip", "rewind")


@dataclass(kw_only=True)
class GuardConfig:
    non_finite: str = "stop"
    """stop | skip | rewind: what is done about a loss or gradient norm that is no number."""
    spike: str = "skip"
    """stop | skip | rewind: what is done about a spike; only with `spike_factor`."""
    spike_factor: float = 0.0
    """A loss or gradient norm this many times its running mean is a spike; 0 looks for none."""
    max_skipped: int = 10
    """Updates that may be left out in a row before the run stops."""
    hang_seconds: float = 600.0
    """A step that takes longer ends the run, with the stacks of all ranks."""
    lost_rank_seconds: float = 30.0
    """A rank without a sign of life for so long ends all others."""
    check_copies_every: int = 0
    """Steps between comparisons of parameters that several ranks hold; 0 makes none."""

    def __post_init__(self) -> None:
        one_of("guard.non_finite", self.non_finite, POLICIES)
        one_of("guard.spike", self.spike, POLICIES)
        at_least("guard.spike_factor", self.spike_factor, 0.0)
        at_least("guard.max_skipped", self.max_skipped, 1)
        finite_seconds("guard.hang_seconds", self.hang_seconds)
        above_zero("guard.lost_rank_seconds", self.lost_rank_seconds)
        at_least("guard.check_copies_every", self.check_copies_every, 0)
