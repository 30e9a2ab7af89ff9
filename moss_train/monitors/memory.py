"""Memory of the rank that uses most: peaks of the GPU's allocator, the process, and the loader's processes."""

from __future__ import annotations

import multiprocessing
from typing import Any

import torch
import torch.distributed as dist

from moss_train.monitors.base import Monitor, Update

GIB = 2**30
_FIGURES = ("allocated", "reserved", "host", "loaders")


def resident_bytes(process: int | str = "self") -> int:
    """Resident memory of a process, pages shared with others included; 0 where the system does not tell."""
    try:
        with open(f"/proc/{process}/status", encoding="ascii", errors="replace") as file:
            return next((1024 * int(line.split()[1]) for line in file if line.startswith("VmRSS:")), 0)
    except OSError:
        return 0


class Memory(Monitor):
    """One small reduction every so many steps; peaks are those since the process began.

    Args:
        device: this rank's.
        every: steps.
        world_size: ranks.
    """

    every_rank = True

    def __init__(self, device: torch.device, every: int, world_size: int) -> None:
        self._device = device
        self._every = every
        self._world_size = world_size
        self._first = True

    def measured(self, update: Update) -> dict[str, Any]:
        if update.step % self._every and not self._first:
            return {}
        self._first = False
        values = torch.tensor(self._here(), dtype=torch.float64, device=self._device)  # [4]
        if self._world_size > 1:
            dist.all_reduce(values, op=dist.ReduceOp.MAX)
        figures = dict(zip(_FIGURES, (value / GIB for value in values.tolist()), strict=True))
        if self._device.type != "cuda":
            figures = {name: figures[name] for name in ("host", "loaders")}
        return {"memory": figures}

    def _here(self) -> list[int]:
        gpu = [0, 0]
        if self._device.type == "cuda":
            gpu = [torch.cuda.max_memory_allocated(self._device), torch.cuda.max_memory_reserved(self._device)]
        readers = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        return [*gpu, resident_bytes(), sum(resident_bytes(process) for process in readers)]
