"""What a timing core is given: a clock, a way to wait for the device, and the memory's high-water mark."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from typing import Protocol

import torch

GIB = 2**30


class Meter(Protocol):
    """A clock that the device can be made to catch up with."""

    def now(self) -> float:
        """Seconds since some moment."""
        ...

    def sync(self) -> None:
        """Return when the device has done all that it was given."""
        ...

    def wait_until(self, t: float) -> None:
        """Return when `now()` is at least `t`."""
        ...


class DeviceMeter:
    """The monotonic clock, and one device.

    Args:
        device: cuda or cpu.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> float:
        return time.perf_counter()

    def sync(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def wait_until(self, t: float) -> None:
        remaining = t - self.now()
        if remaining > 0:
            time.sleep(remaining)

    def reset_peak(self) -> None:
        """Begin a new high-water mark (a process's own cannot be lowered)."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def memory(self) -> dict[str, float]:
        """GiB: `allocated` now and at its `peak`, and what the allocator `reserved` at its peak; of a CPU the process's peak."""
        if self.device.type != "cuda":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB
            return {"allocated": peak, "peak": peak, "reserved": peak}
        return {
            "allocated": torch.cuda.memory_allocated(self.device) / GIB,
            "peak": torch.cuda.max_memory_allocated(self.device) / GIB,
            "reserved": torch.cuda.max_memory_reserved(self.device) / GIB,
        }


def timed(meter: Meter, action: Callable[[], object]) -> float:
    """Seconds of one action, the device's work included and earlier work excluded."""
    meter.sync()
    begin = meter.now()
    action()
    meter.sync()
    return meter.now() - begin


def repeat(meter: Meter, action: Callable[[], object], runs: int, warm_up: int = 1) -> list[float]:
    """Seconds of each of `runs` actions, after `warm_up` that are not counted."""
    for _ in range(warm_up):
        action()
    return [timed(meter, action) for _ in range(runs)]
