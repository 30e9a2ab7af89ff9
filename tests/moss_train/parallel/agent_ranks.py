"""Ranks under torchrun that meet and then end as told: killed_once | CODE | wait | meet, and the seconds that saving takes.

Only those that test their meeting form a group: the others have met when both have said so, and need no torch.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GROUPS = ("killed_once", "meet")


def _meet(how: str) -> tuple[int, int]:
    """Rank and number of ranks."""
    if how not in GROUPS:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    import torch
    import torch.distributed as dist

    from moss_train.parallel.world import start_world

    start_world(torch.device("cpu"))
    total = torch.ones(1)
    dist.all_reduce(total)
    return dist.get_rank(), int(total)


def main(how: str, seconds: float = 0.0) -> int:
    """The exit code."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))
    rank, ranks = _meet(how)
    restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    os.write(1, f"rank {rank} of {ranks} met after {restarts} restarts\n".encode())  # whole: the other rank writes as well
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
        import torch.distributed as dist

        from moss_train.parallel.world import stop_world

        dist.barrier()
        stop_world()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(float, sys.argv[2:])))
