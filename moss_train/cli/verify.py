"""`moss verify golden DIR`: replay recorded quantities and print one line for each."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `moss verify`."""
    parser.add_argument("what", choices=["golden"], help="golden: recorded inputs and outputs of a tiny model")
    parser.add_argument("dir", type=Path, help="folder with config.json, weights.safetensors and io.safetensors")
    parser.add_argument("--tp", type=int, default=1, help="tensor-parallel ranks (default 1)")
    parser.add_argument("--pp", type=int, default=1, help="pipeline stages (default 1)")


def run(args: argparse.Namespace) -> int:
    """Replays the folder in the layout; 0 only if every difference is within the tolerance.

    Raises:
        InputError: a bad folder or sizes that do not fit the model.
    """
    from model.errors import InputError
    from moss_train import platform

    platform.install()
    from moss_train.verify.golden import TOLERANCE, read_golden

    for name, value in (("--tp", args.tp), ("--pp", args.pp)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    _check_layout(read_golden(args.dir).config, args.tp, args.pp)
    if args.tp * args.pp == 1:
        from moss_train.cli.golden_ranks import replay

        found = replay(args.dir, 1, 1)
    else:
        from moss_train.parallel.spawn import run_on_ranks

        answer = run_on_ranks("moss_train.cli.golden_ranks", args.tp * args.pp, [args.dir.resolve(), args.tp, args.pp])
        found = [(name, float(value)) for name, value in answer]
    width = max(len(name) for name, _ in found)
    for name, value in found:
        print(f"{name:<{width}}  {value:.3e}  {'ok' if value <= TOLERANCE else 'DIFFERS'}")
    bad = [name for name, value in found if not value <= TOLERANCE]
    layout = f"tensor {args.tp}, pipeline {args.pp}"
    print(f"{len(found) - len(bad)} of {len(found)} quantities within {TOLERANCE:g} ({layout})")
    return 1 if bad else 0


def _check_layout(config: object, tensor: int, pipeline: int) -> None:
    """Refuses sizes that do not fit before any process is started."""
    from model.config import VideoMllamaConfig
    from model.video_mllama import make_transformer_config

    assert isinstance(config, VideoMllamaConfig)
    make_transformer_config(config, tensor=tensor, pipeline=pipeline)
