"""A rank whose disk takes no large file, in a run of several: all of them end with the same sentence.

Usage: refused_ranks.py CONFIG
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


def main() -> None:
    platform.install()
    config, rank = load_config(sys.argv[1]), os.environ["RANK"]
    if rank == "1":
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        train(config)
    except InputError as error:
        print(f"rank {rank}: {isinstance(error, CommonError)} {error}", flush=True)


if __name__ == "__main__":
    main()
