"""The `profile` group: what is recorded about a few steps for people who look into speed and memory."""

from __future__ import annotations

from dataclasses import dataclass

from moss_train.config.checks import at_least


@dataclass(kw_only=True)
class ProfileConfig:
    first_step: int = 0
    """First step of the window in which torch's profiler records; 0 records nothing."""
    steps: int = 3
    """Steps of the window."""
    memory: bool = False
    """Also record a snapshot of the GPU's memory over the window."""
    nvtx: bool = False
    """Name the parts of a step for Nsight Systems (nsys)."""

    def __post_init__(self) -> None:
        at_least("profile.first_step", self.first_step, 0)
        at_least("profile.steps", self.steps, 1)
