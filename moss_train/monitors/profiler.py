"""A few steps under the microscope: torch's profiler, the GPU's memory, ranges for Nsight Systems."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from model.errors import InputError
from moss_train.config.profile import ProfileConfig
from moss_train.monitors.base import Monitor
from moss_train.phases import MARKING

FOLDER = "profile"
"""Inside the run folder."""
_ROWS = 40  # of a table
_MEMORY_EVENTS = 1_000_000  # that a snapshot holds at most


class Profiler(Monitor):
    """Records the steps of one window, on one rank, without help of the others.

    A run that continues inside the window records what is left of it. What ends a run inside it, an error or too little memory
    too, ends the window: what was recorded so far is written.

    Args:
        settings: what and when.
        folder: of the run.
        rank: this rank.
        device: what it runs on.
    """

    name = "profiler"
    every_rank = True

    def __init__(self, settings: ProfileConfig, folder: Path, rank: int, device: torch.device) -> None:
        self._settings, self._folder, self._rank = settings, folder / FOLDER, rank
        self._cuda = device.type == "cuda"
        self._first, self._last = settings.first_step, settings.first_step + settings.steps - 1
        self._profile: profile | None = None
        self._open = False
        self._steps: list[int] = []

    @classmethod
    def make(cls, settings: ProfileConfig, folder: Path, rank: int, world_size: int, device: torch.device) -> Profiler | None:
        """None where this rank records nothing.

        Raises:
            InputError: on all ranks, a rank is named that the run does not have.
        """
        wanted = settings.first_step > 0 or settings.nvtx
        if wanted and any(chosen >= world_size for chosen in settings.ranks):
            raise InputError(f"profile.ranks is {settings.ranks}, but the run has ranks 0 to {world_size - 1}; choose among them")
        return cls(settings, folder, rank, device) if wanted and rank in settings.ranks else None

    def started(self, step: int, steps: int) -> None:
        self._last = min(self._last, steps)
        if self._settings.nvtx and self._cuda:
            from megatron.core.utils import configure_nvtx_profiling

            MARKING.nvtx = True
            configure_nvtx_profiling(True)  # its layers name their parts too
        elif self._settings.nvtx:
            self._say("profile.nvtx names parts for Nsight Systems, which looks at GPUs; this run has none, so it does nothing")
        if self._settings.first_step and not step < self._last >= self._first:
            self._say(
                f"nothing is profiled: the window begins with step {self._first} and takes {self._settings.steps}, "
                f"this run goes from step {step + 1} to {steps}; change profile.first_step"
            )

    def begun(self, step: int) -> None:
        if not self._settings.first_step:
            return
        if step == self._first - 1 and self._wants_trace:
            self._safely(self._prepare)  # what the first start costs stays out of the window
        if self._first <= step <= self._last:
            self._steps.append(step)
            if not self._open:
                self._open = True
                self._safely(self._begin)

    def stepped(self, record: dict[str, Any]) -> None:
        if self._open and record["step"] >= self._last:
            self._end()

    def finished(self) -> None:
        if self._open:
            self._end()
        if self._profile is not None:
            self._safely(self._profile.stop_trace)  # prepared, but the run ended before the window
            self._profile = None
        MARKING.record = MARKING.nvtx = False

    @property
    def _wants_trace(self) -> bool:
        """On a CPU torch's profiler also is what looks at memory."""
        return self._settings.trace or (self._settings.memory and not self._cuda)

    def _prepare(self) -> None:
        settings = self._settings
        self._folder.mkdir(parents=True, exist_ok=True)
        activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if self._cuda else [])
        made = profile(activities=activities, profile_memory=settings.memory and not self._cuda, with_stack=settings.stacks)
        made.prepare_trace()
        self._profile = made

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._cuda:
            torch.cuda.synchronize()
        if self._settings.memory and self._cuda:
            torch.cuda.memory._record_memory_history(max_entries=_MEMORY_EVENTS)
        if self._wants_trace:
            if self._profile is None:
                self._prepare()
            assert self._profile is not None
            MARKING.record = True
            self._profile.start_trace()
        if self._settings.nvtx and self._cuda:
            torch.cuda.profiler.start()

    def _end(self) -> None:
        self._open = False
        parts: list[Callable[[], None]] = [self._end_nsys, self._write_memory, self._write_trace]
        for part in parts:
            self._safely(part)
        self._profile = None

    def _end_nsys(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()
            if self._settings.nvtx:
                torch.cuda.profiler.stop()

    def _write_memory(self) -> None:
        if not (self._settings.memory and self._cuda):
            return
        snapshot = torch.cuda.memory._snapshot()
        torch.cuda.memory._record_memory_history(enabled=None)
        target = self._path("memory.pickle")
        with target.open("wb") as file:
            pickle.dump(snapshot, file)
        self._say(f"memory over {self._window} is in {target}")

    def _write_trace(self) -> None:
        MARKING.record = False
        made = self._profile
        if made is None:
            return
        made.stop_trace()
        averages = made.key_averages()
        if self._settings.trace:
            made.export_chrome_trace(str(self._path("json.gz", separator=".")))
            order = "self_device_time_total" if self._cuda else "self_cpu_time_total"
            table = averages.table(sort_by=order, row_limit=_ROWS)
            target = self._path("operators.txt")
            target.write_text(f"{self._window} on rank {self._rank}, by {order}\n{table}\n")
            self._say(f"{self._window}: a trace and {target.name} are in {self._folder}")
        if self._settings.memory and not self._cuda:
            target = self._path("memory.txt")
            table = averages.table(sort_by="self_cpu_memory_usage", row_limit=_ROWS)
            target.write_text(f"{self._window} on rank {self._rank}, by self_cpu_memory_usage\n{table}\n")
            self._say(
                f"this run has no GPU whose memory could be recorded; what operators took of the CPU's over {self._window} "
                f"is in {target}"
            )

    @property
    def _window(self) -> str:
        first, last = self._steps[0], self._steps[-1]
        return f"step {first}" if first == last else f"steps {first} to {last}"

    def _path(self, ending: str, separator: str = "_") -> Path:
        return self._folder / f"rank_{self._rank:05d}{separator}{ending}"

    def _safely(self, action: Callable[[], None]) -> None:
        """A profiler or a disk that refuses does not end a run."""
        try:
            action()
        except Exception as error:
            self._say(f"profiling failed: {type(error).__name__}: {error}")

    def _say(self, sentence: str) -> None:
        print(f"moss [rank {self._rank}]: {sentence}", file=sys.stderr, flush=True)
