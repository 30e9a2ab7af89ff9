"""A layout leaves nothing behind, so that many can follow each other in one process."""

from __future__ import annotations

import gc
import os

import torch

from moss_train.config.schema import ParallelConfig
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world


def _threads() -> int:
    return len(os.listdir("/proc/self/task"))


def test_layouts_leave_no_threads_behind() -> None:
    device = torch.device("cpu")
    start_world(device)
    counts = []
    for _ in range(3):
        start_layout(ParallelConfig(), device, seed=1)
        stop_layout()
        gc.collect()
        counts.append(_threads())
    stop_world()
    assert counts[2] <= counts[0]  # each start makes some 60 threads
