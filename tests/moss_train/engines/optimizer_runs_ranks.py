"""Run on 2 ranks: runs with every choice of optimizer, continued from what a kill would have left, and by another layout.

Usage: optimizer_runs_ranks DATA_DIR OUT_DIR
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch.distributed as dist

from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from tests.moss_train.resume_ranks import leave_as_killed, rows, run

HERE = {"data__worker_processes": 0, "data__global_data_workers": 1}
MODULES = [
    {"name": "text", "learning_rate_multiplier": 0.5, "weight_decay": 0.1},
    {"name": "projector", "learning_rate_multiplier": 2.0},
]
WSD = {"stage__schedule": "wsd", "stage__decay_ratio": 0.6, "stage__decay_shape": "sqrt"}
CASES: dict[str, dict[str, Any]] = {
    "fp32": {"optimizer__modules": MODULES, "optimizer__ema_decay": 0.9, **WSD},
    "halves": {"precision__dtype": "bf16", "optimizer__master": "remainders", "optimizer__moments": "bf16",
               "optimizer__beta2": 0.98, "optimizer__ema_decay": 0.9},
    "muon": {"optimizer__name": "muon", "optimizer__distributed": False, "optimizer__momentum": 0.95},
}  # fmt: skip


SAME = (
    "step",
    "loss",
    "grad_norm",
    "learning_rate",
    "vision_learning_rate",
    "targets",
    "tokens",
    "eval_loss",
    "eval_dataset_loss",
)


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    """What depends on weights, optimizer and data alone."""
    return [{name: row[name] for name in SAME if name in row} for row in rows(run_dir)]


def main(data: Path, out: Path) -> None:
    """The report is the last line of rank 0."""
    start_world(resolve_device("auto"))
    first = dist.get_rank() == 0
    report: dict[str, Any] = {}
    for case, changes in CASES.items():
        whole = out / case
        run(data, whole, **changes)
        report[case] = {"whole": metrics(whole)} if first else {}
        for name, then in (("dp2", {}), ("tp2", {"parallel__tensor": 2})):
            killed = out / f"{case}_{name}"
            if first:
                leave_as_killed(whole, killed)
            dist.barrier()
            run(data, killed, **changes, **then)
            if first:
                report[case][name] = metrics(killed)
    if first:
        print("REPORT " + json.dumps(report), flush=True)
    dist.barrier()
    stop_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
