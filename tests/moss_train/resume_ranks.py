"""Run by torchrun on 2 ranks: whole runs, and runs continued from what a kill would have left on disk.

Usage: resume_ranks DATA_DIR OUT_DIR
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch.distributed as dist

from model.errors import InputError
from moss_train.parallel.layout import stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.trainer import Outcome, train
from tests.moss_train.runs import run_config

STEPS, KILLED_AT = 5, 3
TIMES = (
    "seconds", "data_seconds", "feed_seconds", "tokens_per_second", "frames_per_second", "between_seconds", "data_share",
    "checkpoint_stall_seconds", "checkpoint_stall_total", "elapsed_seconds", "eta_seconds", "memory", "monitor_seconds",
    "phase_seconds", "tflops_per_second", "mfu",
)  # fmt: skip


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """Metrics without what a clock decides."""
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in lines]


def leave_as_killed(run_dir: Path, copy: Path) -> None:
    """A copy in the state of a run killed in the middle of step `KILLED_AT` + 2."""
    shutil.copytree(run_dir, copy)
    shutil.rmtree(copy / "checkpoints" / f"step_{STEPS:08d}")
    (copy / "checkpoints" / f"step_{STEPS:08d}.tmp").mkdir()
    (copy / "latest").write_text(f"step_{KILLED_AT:08d}\n")
    metrics = copy / "metrics.jsonl"
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[: KILLED_AT + 2]) + '{"step": 5, "lo')


def run(data: Path, run_dir: Path, steps: int = STEPS, **changes: Any) -> Outcome:
    """Train and forget the layout."""
    outcome = train(run_config(data, run_dir, "pt2", steps, train__save_every=KILLED_AT, **changes))
    stop_layout()
    return outcome


def main(data: Path, out: Path) -> None:
    """The report is the last line of rank 0."""
    start_world(resolve_device("auto"))
    first = dist.get_rank() == 0
    here = {"data__worker_processes": 0, "data__global_data_workers": 1}  # one replica needs no worker process
    layouts: dict[str, dict[str, Any]] = {
        "dp2": {},
        "tp2": {"parallel__tensor": 2, **here},
        "pp2": {"parallel__pipeline": 2, **here},
        "cp2": {"parallel__context": 2, **here},
    }
    report: dict[str, Any] = {}
    for name, then in (("dp2", "dp2"), ("tp2", "pp2"), ("cp2", "tp2")):
        whole, killed = out / name, out / f"{name}_killed"
        run(data, whole, **layouts[name])
        if first:
            leave_as_killed(whole, killed)
        dist.barrier()
        outcome = run(data, killed, **layouts[then])
        if first:
            report[f"{name}-{then}"] = {"whole": rows(whole), "resumed": rows(killed), "step": outcome.step}
            report[f"{name}-{then}"]["folders"] = sorted(p.name for p in (killed / "checkpoints").iterdir())
    try:
        run(data, out / "dp2_killed", steps=STEPS + 1, **layouts["tp2"])
    except InputError as error:
        report["other_readers"] = str(error)
    if first:
        print("REPORT " + json.dumps(report), flush=True)
    dist.barrier()
    stop_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
