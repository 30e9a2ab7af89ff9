"""Run on several ranks: a loop of collectives under the watch of a run, in which something goes wrong on one rank.

Usage: watch_ranks RUN_DIR TROUBLE

TROUBLE happens on the last rank, before its fourth all-reduce: sleep | stopped | holds_the_lock | killed | input |
nothing | endless.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from moss_train.config.guard import GuardConfig
from moss_train.guards.cause import EXIT_BAD_INPUT
from moss_train.guards.watch import start_watch
from tests.moss_train.runs import run_config

LIMITS = {
    "sleep": GuardConfig(hang_seconds=2.0, slow_seconds=2.0, lost_rank_seconds=30.0),
    "stopped": GuardConfig(lost_rank_seconds=3.0),
    "holds_the_lock": GuardConfig(lost_rank_seconds=3.0),
    "killed": GuardConfig(lost_rank_seconds=9.0),
    "input": GuardConfig(lost_rank_seconds=9.0),
    "endless": GuardConfig(lost_rank_seconds=9.0),
    "nothing": GuardConfig(hang_seconds=2.0, slow_seconds=2.0, lost_rank_seconds=3.0),
}


def make_trouble(trouble: str) -> None:
    """On the rank that has it."""
    if trouble == "sleep":
        time.sleep(600)
    elif trouble == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif trouble == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif trouble == "holds_the_lock":
        ctypes.PyDLL(None).sleep(600)


def main(run_dir: Path, trouble: str) -> int:
    """The exit code where this process ends by itself."""
    dist.init_process_group("gloo")
    rank, size = dist.get_rank(), dist.get_world_size()
    run_dir.mkdir(exist_ok=True)
    config = run_config(run_dir, run_dir, guard=LIMITS[trouble])
    watch = start_watch(config, rank, size)
    try:
        for step in range(1, 100_000 if trouble == "endless" else 6):
            watch.position.at("step", step)
            if step == 4:  # by now all are under watch
                (run_dir / f"pid_{rank}").write_text(str(os.getpid()))
            if step == 4 and rank == size - 1:
                if trouble == "input":
                    return watch.tell(f"rank {rank}: the sample is bad", EXIT_BAD_INPUT, f"rank {rank} prints: the sample is bad")
                make_trouble(trouble)
            dist.all_reduce(torch.ones(1))
            time.sleep(0.2)
    except RuntimeError:
        watch.wait_for_cause()
        print("no cause came", file=sys.stderr)
        return 1
    watch.stop()
    print(f"rank {rank} is done", flush=True)
    dist.destroy_process_group()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
