"""Run by torchrun: one run after another, without the start of new processes between them.

Usage: train_ranks CONFIG.yaml...
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import sys

from moss_train import platform

platform.install()

from moss_train.config.compose import load_config
from moss_train.parallel.layout import stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.trainer import train


def main(*configs: str) -> None:
    """Train each to its end."""
    start_world(resolve_device("auto"))
    for config in configs:
        train(load_config(config))
        stop_layout()
    stop_world()


if __name__ == "__main__":
    main(*sys.argv[1:])
