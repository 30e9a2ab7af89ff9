"""The `profile` group: what is recorded about a few steps for people who look into speed and memory."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.errors import InputError
from moss_train.config.checks import at_least


@dataclass(kw_only=True)
class ProfileConfig:
    first_step: int = 0
    """First step of the window in which things are recorded; 0 records nothing."""
    steps: int = 3
    """Steps of the window."""
    trace: bool = True
    """Record the window with torch's profiler."""
    memory: bool = False
    """Record who takes and returns the GPU's memory in the window; on a CPU, memory by operator in place of it."""
    nvtx: bool = False
    """Name the parts of every step for Nsight Systems (nsys), and tell it where the window begins and ends."""
    stacks: bool = False
    """Also record which lines of Python operators come from; makes steps slower and the trace larger."""
    ranks: list[int] = field(default_factory=lambda: [0])
    """Ranks that record."""

    def __post_init__(self) -> None:
        at_least("profile.first_step", self.first_step, 0)
        at_least("profile.steps", self.steps, 1)
        for rank in self.ranks:
            at_least("profile.ranks", rank, 0)
        if self.memory and not self.first_step:
            raise InputError("profile.memory is true with profile.first_step 0, which has no window; set profile.first_step")
        if self.first_step and not (self.trace or self.memory or self.nvtx):
            raise InputError(
                f"profile.first_step is {self.first_step} with nothing to record; set profile.trace, profile.memory or nvtx"
            )
