"""`moss plan measure`: real steps on a GPU beside what was predicted of them."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from model.errors import InputError
from moss_train.config.arguments import add_config_arguments, config_from_args, print_config

VERSIONS = ("torch", "megatron-core", "transformer-engine", "flash-attn")
"""Packages whose versions are written beside the numbers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    add_config_arguments(parser)
    parser.add_argument(
        "--pack", nargs="+", metavar="ROWS:FRAMES,...", help="samples of every micro-batch (default: one full pack of the stage)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write what was measured to this JSON file")


def run(args: argparse.Namespace) -> int:
    """Run the steps on every rank that the launcher started; the first prints.

    Raises:
        InputError: no GPU, packs that cannot be read, or a layout that does not fit the ranks.
    """
    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    from moss_train import platform

    platform.install()
    import torch
    import torch.distributed as dist

    from moss_train.checkpoint.description import write_atomically
    from moss_train.cli.bench.shared import file_to_write, surroundings
    from moss_train.planning.measure import measure, world
    from moss_train.planning.memory import PackLoad, largest_frames, plan_memory

    stage = config.stage
    packs = [_samples(word) for word in args.pack or [f"{stage.sequence_length}:{largest_frames(config)}"]]
    file_to_write("--out", args.out)
    load = PackLoad.of_samples(packs)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    predicted = plan_memory(config, ranks, load)
    with world(config) as layout:
        found = measure(config, packs, layout)
        everyone: list[dict[str, object] | None] = [None] * layout.world_size
        dist.all_gather_object(everyone, vars(found))
        stages = [place.pipeline for place in layout.places]
    if int(os.environ.get("RANK", "0")):
        return 0
    print(f"{'rank':>4}{'phase':>10}{'measured GB':>13}{'predicted GB':>14}{'difference':>12}{'seconds':>9}")
    for rank, row in enumerate(everyone):
        assert row is not None
        _print(rank, row, predicted.stages[stages[rank]].phases)
    if args.out is not None:
        gpu = torch.cuda.get_device_properties(layout.device)
        content = {
            **surroundings(VERSIONS, torch.device("cpu")),
            "hardware": {"device": gpu.name, "memory": gpu.total_memory, "gpus": ranks},
            "overrides": args.overrides, "samples": packs, "ranks": everyone,
        }  # fmt: skip
        write_atomically(args.out, json.dumps(content, indent=1) + "\n")
    return 0


def _print(rank: int, row: dict[str, object], phases: dict[str, dict[str, int]]) -> None:
    peaks, seconds = row["peaks"], row["seconds"]
    assert isinstance(peaks, dict) and isinstance(seconds, dict)
    sums = {phase: sum(kinds.values()) for phase, kinds in phases.items()}
    rows = (
        ("encode", peaks["encode"], sums["encode"], seconds["encode"]),
        (
            "decode", max(peaks["forward"], peaks["backward"]), max(sums["losses"], sums["backward"]),
            seconds["forward"] + seconds["backward"],
        ),
        ("return", peaks["return"], sums["return"], seconds["return"]),
        ("update", peaks["update"], sums["update"], seconds["update"]),
    )  # fmt: skip
    for phase, measured, predicted, took in rows:
        difference = predicted / measured - 1
        print(f"{rank:>4}{phase:>10}{measured / 1e9:>13.2f}{predicted / 1e9:>14.2f}{difference:>12.1%}{took:>9.3f}")


def _samples(word: str) -> list[tuple[int, int]]:
    """`2048:8,1024:4` as (rows, frames)."""
    samples = []
    for part in word.split(","):
        rows, colon, frames = part.partition(":")
        if not colon or not rows.isdigit() or not frames.isdigit() or int(rows) < 2 or int(frames) > int(rows):
            raise InputError(
                f"--pack has {part!r}; write ROWS:FRAMES with at least 2 rows and at most as many frames, such as 4096:64"
            )
        samples.append((int(rows), int(frames)))
    return samples
