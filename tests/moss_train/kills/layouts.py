"""The layouts in which runs are killed and continued."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moss_train.config.schema import RunConfig
from tests.moss_train.runs import run_config

READERS, GLOBAL_BATCH = 2, 4
SAVE_EVERY, EVAL_EVERY = 5, 10
STOP_SECONDS = 30.0
"""Time for the step and the checkpoint behind SIGTERM or Ctrl-C, `guard.stop_seconds`."""


@dataclass(frozen=True)
class Layout:
    """Ranks, and how they share the work."""

    name: str
    ranks: int
    parallel: tuple[tuple[str, int], ...] = ()


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("single", 1),
        Layout("dp2", 2),
        Layout("tp2", 2, (("tensor", 2),)),
        Layout("pp2", 2, (("pipeline", 2),)),
        Layout("cp2", 2, (("context", 2),)),
        Layout("tp2.pp2", 4, (("tensor", 2), ("pipeline", 2))),
        Layout("dp2.tp2", 4, (("tensor", 2),)),
    )
}


def config_of(data: Path, run_dir: Path, layout: Layout, steps: int, *, processes: int = 0, keep_all: bool = False) -> RunConfig:
    """A run of the tiny model in fp32 on text, images and videos.

    Args:
        data: written by `write_data`.
        processes: loader processes of each replica.
        keep_all: keep all checkpoints.
    """
    values: dict[str, Any] = {
        "train__global_batch_size": GLOBAL_BATCH,
        "train__save_every": SAVE_EVERY,
        "train__eval_every": EVAL_EVERY,
        "train__eval_batches": 4,
        "checkpoint__keep_every": SAVE_EVERY if keep_all else 0,
        "guard__stop_seconds": STOP_SECONDS,
        "data__global_data_workers": READERS,
        "data__worker_processes": processes,
        "data__log_samples": True,
    }
    values |= {f"parallel__{name}": size for name, size in layout.parallel}
    return run_config(data, run_dir, "pt2", steps, **values)
