"""The `checkpoint` group: how checkpoints are written, kept and looked at."""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.config.checks import at_least, finite_seconds, one_of

VERIFY = ("full", "sizes")


@dataclass(kw_only=True)
class CheckpointConfig:
    asynchronous: bool = True
    """Write in the background while training goes on; takes as much host memory as the rank's share of the state."""
    keep_last: int = 2
    """The newest checkpoints kept."""
    keep_every: int = 0
    """Checkpoints of steps that are multiples of it are kept for ever, beside the newest `keep_last`; 0 keeps no more."""
    verify: str = "full"
    """full | sizes: on loading compare the checksum of everything that is read, or sizes of files only."""
    retry_seconds: float = 60.0
    """Pause after a checkpoint that could not be written, before the next attempt."""
    end_retry_seconds: float = 300.0
    """How long the last checkpoint of a run is tried again before the run ends with an error; 0 tries once."""
    writers: int = 4
    """Files that a rank writes at the same time."""

    def __post_init__(self) -> None:
        at_least("checkpoint.keep_last", self.keep_last, 1)
        at_least("checkpoint.keep_every", self.keep_every, 0)
        one_of("checkpoint.verify", self.verify, VERIFY)
        finite_seconds("checkpoint.retry_seconds", self.retry_seconds)
        at_least("checkpoint.end_retry_seconds", self.end_retry_seconds, 0)
        at_least("checkpoint.writers", self.writers, 1)
