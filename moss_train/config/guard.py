"""The `guard` group: what is done about bad numbers, hanging, lost and slow ranks."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import InputError
from moss_train.config.checks import above_zero, at_least, one_of

POLICIES = ("stop", "skip", "rewind")
RESILIENCY = ("none", "heartbeat")
LONGEST_SECONDS = 3000.0
"""Beyond it the collectives' own time limit would end a rank first, without a cause."""


@dataclass(kw_only=True)
class GuardConfig:
    non_finite: str = "stop"
    """stop | skip | rewind: what is done about a loss or gradient norm that is no number."""
    spike: str = "skip"
    """stop | skip | rewind: what is done about a spike; only with `spike_factor`."""
    spike_factor: float = 0.0
    """A loss or gradient norm this many times its running median is a spike; 0 looks for none."""
    spike_window: int = 128
    """Applied updates over which the median runs."""
    spike_warmup: int = 32
    """Applied updates before the first spike is looked for; at most `spike_window`."""
    max_skipped: int = 10
    """Updates that may be left out in a row before the run stops."""
    keep_anomalies: int = 8
    """Newest folders of RUN/anomalies that are kept, each with one global batch; 0 writes none."""
    hang_seconds: float = 600.0
    """A step that takes longer ends the run, with the stacks of all ranks; 0 watches nothing. A wait for data may take
    `data.worker_timeout_seconds` more."""
    slow_seconds: float = 1800.0
    """The same for what happens seldom and takes longer: the start, the first step, an evaluation, a checkpoint."""
    lost_rank_seconds: float = 30.0
    """A rank without a sign of life for so long ends all others."""
    stop_seconds: float = 0.0
    """Time between a signal that asks to end and the end, checkpoint included; past it the rank ends without. 0 sets no limit."""
    check_copies_every: int = 0
    """Steps between comparisons of parameters that several ranks hold; 0 makes none."""
    report_stragglers_every: int = 100
    """Steps between reports of how long each rank was busy; 0 makes none."""
    straggler_factor: float = 1.5
    """A rank busy this many times as long as the median, in `straggler_reports` reports in a row, is warned about."""
    straggler_reports: int = 3
    """Reports in a row before the warning."""
    resiliency: str = "none"
    """none | heartbeat: signs of life to the monitor that ft_launcher of nvidia-resiliency-ext keeps beside each rank."""

    def __post_init__(self) -> None:
        one_of("guard.non_finite", self.non_finite, POLICIES)
        one_of("guard.spike", self.spike, POLICIES)
        at_least("guard.spike_factor", self.spike_factor, 0.0)
        if 0 < self.spike_factor <= 1:
            raise InputError(f"guard.spike_factor is {self.spike_factor}; it must be above 1, or 0 to look for no spikes")
        at_least("guard.spike_window", self.spike_window, 1)
        at_least("guard.spike_warmup", self.spike_warmup, 1)
        if self.spike_warmup > self.spike_window:
            raise InputError(
                f"guard.spike_warmup is {self.spike_warmup}, more than guard.spike_window {self.spike_window}; lower it"
            )
        at_least("guard.max_skipped", self.max_skipped, 1)
        at_least("guard.keep_anomalies", self.keep_anomalies, 0)
        for name in ("hang_seconds", "slow_seconds"):
            value = getattr(self, name)
            if not 0 <= value <= LONGEST_SECONDS:
                raise InputError(f"guard.{name} is {value}; it must be between 0 and {LONGEST_SECONDS:g}")
        if self.slow_seconds < self.hang_seconds:
            raise InputError(
                f"guard.slow_seconds is {self.slow_seconds}, less than guard.hang_seconds {self.hang_seconds}; raise it"
            )
        above_zero("guard.lost_rank_seconds", self.lost_rank_seconds)
        at_least("guard.stop_seconds", self.stop_seconds, 0.0)
        at_least("guard.check_copies_every", self.check_copies_every, 0)
        at_least("guard.report_stragglers_every", self.report_stragglers_every, 0)
        if not 1 < self.straggler_factor < float("inf"):
            raise InputError(f"guard.straggler_factor is {self.straggler_factor}; it must be above 1")
        at_least("guard.straggler_reports", self.straggler_reports, 1)
        one_of("guard.resiliency", self.resiliency, RESILIENCY)
