"""The parts of a step by name: how long they took on this rank, and ranges in the traces of profilers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import record_function


@dataclass
class Marking:
    """Which profilers are told of `mark`; changed by the profiling monitor, for the whole process."""

    record: bool = False
    """torch.profiler."""
    nvtx: bool = False
    """Nsight Systems; needs a GPU."""


MARKING = Marking()


@contextmanager
def mark(name: str) -> Iterator[None]:
    """A range of that name in the traces of profilers that run; costs nothing worth mentioning where none does."""
    if not (MARKING.record or MARKING.nvtx):
        yield
        return
    with ExitStack() as ranges:
        if MARKING.nvtx:
            ranges.enter_context(torch.cuda.nvtx.range(name))
        if MARKING.record:
            ranges.enter_context(record_function(name))
        yield


class Phases:
    """Seconds by name since the last `take`.

    On a GPU they are the device's: events stand in the stream before and after a part, so that nothing waits in the step.
    A part whose kernels still run when the step is taken, as the optimizer's do, is counted in the next one.

    Args:
        device: what the parts run on; None takes the host's clock.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._events = device is not None and device.type == "cuda"
        self._spans: list[tuple[str, Any, Any]] = []
        self._free: list[Any] = []  # events are made once and used again
        self.current = ""
        """What the host is in; empty between parts."""

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Count the time inside towards a name."""
        with mark(name):
            begin, before, self.current = self._now(), self.current, name
            try:
                yield
            finally:
                self.current = before
                self._spans.append((name, begin, self._now()))

    def take(self) -> dict[str, float]:
        """What was counted, and begin anew."""
        seconds: dict[str, float] = {}
        running = []
        for name, begin, end in self._spans:
            if not self._events:
                seconds[name] = seconds.get(name, 0.0) + end - begin
            elif end.query():
                seconds[name] = seconds.get(name, 0.0) + begin.elapsed_time(end) / 1e3
                self._free += (begin, end)
            else:
                running.append((name, begin, end))
        self._spans = running
        return seconds

    def _now(self) -> Any:
        if not self._events:
            return time.perf_counter()
        event = self._free.pop() if self._free else torch.cuda.Event(enable_timing=True)
        event.record()
        return event
