"""A layout leaves nothing behind, so that many can follow each other in one process."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import torch

from moss_train.config.schema import ParallelConfig
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.trainer import train
from tests.moss_train.runs import run_config, write_data


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


def test_runs_leave_no_threads_behind(tmp_path: Path) -> None:
    """megatron-core's gradient hooks would keep modules, and with them the groups, for ever."""
    write_data(tmp_path)
    counts = []
    for i in range(2):
        train(run_config(tmp_path, tmp_path / f"run{i}", "warm_text", 1, data__worker_processes=0, train__eval_batches=0))
        stop_layout()
        counts.append(_threads())
    stop_world()
    assert counts[1] <= counts[0]
