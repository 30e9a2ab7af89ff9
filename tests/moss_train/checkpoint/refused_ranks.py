"""A rank whose disk takes no large file, for ever or until a step, in a run of several.

Usage: refused_ranks CONFIG [STEP]
"""

from __future__ import annotations

import os
import resource
import sys

from model.errors import InputError
from moss_train import platform
from moss_train.config.compose import load_config
from moss_train.feed.agreement import CommonError
from moss_train.trainer import train
from tests.moss_train.checkpoint.unblocking import After


def main() -> None:
    platform.install()
    config, rank = load_config(sys.argv[1]), os.environ["RANK"]
    if rank == "1":
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

    def lift(step: int) -> None:
        if sys.argv[2:] == [str(step)]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    try:
        outcome = train(config, [After(lift).make])
        print(f"rank {rank}: finished {outcome.step}", flush=True)
    except InputError as error:
        print(f"rank {rank}: {isinstance(error, CommonError)} {error}", flush=True)


if __name__ == "__main__":
    main()
