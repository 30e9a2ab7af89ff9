"""Cases that a module of ranks computes in one layout after the other, in one start of processes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed as dist

from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from tests.moss_train.updates import layout_sizes


def run_cases(word: str, names: Iterable[str], cases: Iterable[str], work: Callable[[ParallelLayout, str], Any]) -> None:
    """The last rank prints `WORD {"layout/case": result}` as JSON.

    Args:
        names: layouts, such as `tp2.sp`; `tp2:adam` has one of the cases.
        work: on every rank, for each case in each layout.
    """
    torch.set_num_threads(1)
    device = resolve_device("auto")
    start_world(device)
    found = {}
    for given in names:
        name, _, only = given.partition(":")
        layout = start_layout(layout_sizes(name), device, seed=1)
        for case in [only] if only else cases:
            found[f"{name}/{case}"] = work(layout, case)
        stop_layout()
    if dist.get_rank() == dist.get_world_size() - 1:
        print(f"{word} " + json.dumps(found), flush=True)
    dist.barrier()
    stop_world()
