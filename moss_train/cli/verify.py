"""`moss verify golden DIR`: replay recorded quantities and print one line for each."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
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
        found = _spawn(args.dir, args.tp, args.pp)
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


def _spawn(folder: Path, tensor: int, pipeline: int) -> list[tuple[str, float]]:
    from model.errors import InputError

    with tempfile.TemporaryDirectory(prefix="moss_verify_") as scratch:
        result = Path(scratch) / "differences.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(tensor * pipeline)]
        command += ["-m", "moss_train.cli.golden_ranks", str(folder.resolve()), str(tensor), str(pipeline), str(result)]
        environment = {"OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"} | dict(os.environ)
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if not result.is_file():
            sys.stderr.write(ended.stderr[-4000:])
            raise RuntimeError(f"the ranks of the replay ended with {ended.returncode} and left no result")
        content = json.loads(result.read_text(encoding="utf-8"))
    if "error" in content:
        raise InputError(content["error"])
    return [(name, float(value)) for name, value in content["differences"]]
