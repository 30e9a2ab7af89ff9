"""Ranks under torchrun that meet and then end as they are told: killed_once | CODE | wait, and the seconds that saving takes."""

from __future__ import annotations

import os
import signal
import sys
import time

import torch
import torch.distributed as dist

from moss_train.parallel.world import start_world, stop_world


def main(how: str, seconds: float = 0.0) -> int:
    """The exit code."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))
    start_world(torch.device("cpu"))
    total = torch.ones(1)
    dist.all_reduce(total)
    rank, restarts = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    os.write(1, f"rank {rank} of {int(total)} met after {restarts} restarts\n".encode())  # whole: the other rank writes as well
    if how == "killed_once" and restarts == 0 and rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if how.isdecimal() and rank == 1:
        os._exit(int(how))
    end = time.monotonic() + 60.0  # of a rank that outlives its agent, whose output it would keep open
    while not told and time.monotonic() < end and (how != "killed_once" or restarts == 0):
        time.sleep(0.05)
    if told:
        time.sleep(seconds)
        os.write(1, f"rank {rank} saved\n".encode())
    if how == "killed_once":
        dist.barrier()
        stop_world()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(float, sys.argv[2:])))
