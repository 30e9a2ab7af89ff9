"""The step's clock of phases, which also notes the host's time in each and the most memory allocated within."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from moss_train.phases import Phases


class StepClock(Phases):
    """Stands in for `DecoupledStep.phases`: nothing is waited for, as in a run.

    Args:
        device: what the parts run on.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._cuda = device.type == "cuda"
        self.host: dict[str, float] = {}
        """Seconds until the host was through with a phase: where they are the device's, the host may be what limits."""
        self.peaks: dict[str, int] = {}
        """Most bytes allocated at once within a phase; on a CPU none."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        with super().__call__(name):
            yield
        self.host[name] = self.host.get(name, 0.0) + time.perf_counter() - begin
        if self._cuda:
            self.peaks[name] = max(self.peaks.get(name, 0), torch.cuda.max_memory_allocated())

    def begin(self) -> None:
        """Forget what was noted, before a step."""
        self.take()
        self.host, self.peaks = {}, {}


def memory_of(clock: StepClock, device: torch.device, weights: int, static: int) -> dict[str, object]:
    """Bytes: of the weights, between steps, at most in each phase and in all, reserved, and beside the allocator.

    Args:
        clock: of steps that have run.
        weights: allocated once the modules were built.
        static: allocated between steps.
    """
    if device.type != "cuda":
        return {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "of": "the process, over its whole life"}
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.memory_reserved(device)
    peaks = {name: peak for name, peak in clock.peaks.items() if name != "statistics"}
    return {
        "weights": weights,
        "static": static,
        "peaks": peaks,
        "peak": max([static, *peaks.values()]),
        "reserved": torch.cuda.memory_stats(device)["reserved_bytes.all.peak"],
        "beside": total - free - reserved,
    }
