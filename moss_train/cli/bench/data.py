"""`moss bench data`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import InputError
from moss_train.cli.bench.shared import chosen, file_to_write, positive, surroundings

if TYPE_CHECKING:
    from moss_train.bench.data.clips import Clips
    from moss_train.bench.data.meter import Row

LEVELS = ("decoder", "loader", "ranks", "memory", "device")
VERSIONS = ("torch", "av", "opencv-python-headless", "torchcodec", "megatron-energon", "webdataset", "pillow", "numpy")
"""Packages whose versions are written beside the numbers."""
RANKS_IMAGE_SIZE = 112
"""Pixels: a model that hardly computes, so that what is measured is the loader."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure, and on what."""
    parser.add_argument("--levels", default=",".join(LEVELS[:-1]), help="separated by commas (default %(default)s)")
    parser.add_argument("--clips", default="4", help="synthetic clips (default %(default)s)")
    parser.add_argument("--seconds", default="12", help="length of each (default %(default)s)")
    parser.add_argument("--width", default="1920", help="of each in pixels (default %(default)s)")
    parser.add_argument("--height", default="1080", help="of each in pixels (default %(default)s)")
    parser.add_argument("--size", default="560", help="side of the model's square in pixels (default %(default)s)")
    parser.add_argument("--repeats", default="3", help="rounds over all ways, one more is not counted (default %(default)s)")
    parser.add_argument("--samples", default="100000", help="samples of the level memory (default %(default)s)")
    parser.add_argument(
        "--work-dir", type=Path, default=Path("bench-data"), metavar="DIR", help="clips are kept there (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write what was measured to this JSON file")


def run(arguments: argparse.Namespace) -> int:
    """Make the clips, measure, print, write.

    Raises:
        InputError: an unknown level, a number below 1, or OpenCV is missing, with which the baseline decodes.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from data_pipeline.media.backend import import_problem
    from moss_train.bench.data.clips import ClipSettings, make_clips
    from moss_train.checkpoint.description import write_atomically

    levels = chosen("--levels", arguments.levels, LEVELS)
    numbers = {name: positive(f"--{name}", getattr(arguments, name)) for name in _NUMBERS}
    if "ranks" in levels and numbers["clips"] < 4:
        raise InputError(f"--clips is {numbers['clips']}; the level ranks has 4 readers and needs a clip for each")
    if "device" in levels and not torch.cuda.is_available():
        raise InputError("the level device measures a GPU, but torch sees no CUDA device; leave it out of --levels")
    problem = import_problem("opencv")
    if problem is not None and {"decoder", "loader"} & set(levels):
        raise InputError(
            f"the reference's way decodes with OpenCV, which does not import ({problem}); `pip install opencv-python-headless`"
        )
    file_to_write("--out", arguments.out)
    torch.set_num_threads(1)
    settings = ClipSettings(
        count=numbers["clips"], seconds=float(numbers["seconds"]), width=numbers["width"], height=numbers["height"]
    )
    clips = None if levels == ["memory"] else make_clips(arguments.work_dir, settings, _say)
    found = _measure(levels, clips, arguments.work_dir, numbers)
    if arguments.out is not None:
        content = {
            **surroundings(VERSIONS, torch.device("cuda" if "device" in levels else "cpu")),
            "clips": asdict(settings),
            "size": numbers["size"],
            **found,
        }
        write_atomically(arguments.out, json.dumps(content, indent=2) + "\n")
    return 0


_NUMBERS = ("clips", "seconds", "width", "height", "size", "repeats", "samples")


def _measure(levels: list[str], clips: Clips | None, work_dir: Path, numbers: dict[str, int]) -> dict[str, Any]:
    from moss_train.bench.data import decoder_level, loader_level, memory_level, ranks_level

    found: dict[str, Any] = {}
    if clips is not None and "decoder" in levels:
        rows, missing = decoder_level.measure(clips, numbers["size"], numbers["repeats"], _say)
        _print("decoder, one thread", rows)
        for way, reason in missing.items():
            print(f"{way}: not measured: {reason}")
        found |= {"decoder": [asdict(row) for row in rows], "not_measured": missing}
    if clips is not None and "loader" in levels:
        rows = loader_level.measure(clips, numbers["size"], numbers["repeats"], _say)
        _print("loader, one process", rows)
        found["loader"] = [asdict(row) for row in rows]
    if clips is not None and "ranks" in levels:
        runs = ranks_level.measure(clips, work_dir, RANKS_IMAGE_SIZE, [0, 1, 2], _say)
        print(f"{'training, two ranks':<24}{'processes':>10}{'micro-batches/CPU-s':>21}{'data wait':>11}{'p50':>7}{'p95':>7}")
        for run in runs:
            print(
                f"{run.shards:<24}{run.worker_processes:>10}{run.speed:>20.2f}x"
                f"{run.data_wait:>11.1%}{run.data_wait_p50:>7.1%}{run.data_wait_p95:>7.1%}"
            )
        found["ranks"] = [asdict(run) for run in runs]
    if "memory" in levels:
        memory = memory_level.measure(work_dir, numbers["samples"], max(1, numbers["samples"] // 100), _say)
        print(f"memory over {memory.samples} samples: slope {memory.slope:+.3f} MiB per 10,000, growth {memory.growth:+.1f} MiB")
        found["memory"] = asdict(memory)
    if clips is not None and "device" in levels:
        found |= _measure_device(clips, work_dir, numbers["size"])
    return found


def _measure_device(clips: Clips, work_dir: Path, size: int) -> dict[str, Any]:
    from moss_train.bench.data import device_level

    upload = device_level.measure_upload(size)
    print(f"upload: {upload}")
    feeds = device_level.measure_feed(clips, work_dir, size, _say)
    for feed in feeds:
        print(f"feed: {feed}", flush=True)
    return {"upload": asdict(upload), "feed": [asdict(feed) for feed in feeds]}


def _print(title: str, rows: list[Row]) -> None:
    print(f"{title + ', ratios to ' + rows[0].way:<58}{'samples/CPU-s':>14}{'p50':>8}{'p95':>8}{'p99':>8}  pixels")
    for row in rows:
        print(f"{row.way:<58}{row.speed:>13.2f}x{row.p50:>8.2f}{row.p95:>8.2f}{row.p99:>8.2f}  {row.difference}", flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
