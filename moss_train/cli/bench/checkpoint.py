"""`moss bench checkpoint`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.cli.bench.shared import file_to_write, positive, surroundings

VERSIONS = ("torch", "megatron-core", "transformer-engine")
"""Packages whose versions are written beside the numbers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure."""
    parser.add_argument(
        "--model", default="cut", choices=["cut", "tiny"], help="cut (default): 11B widths, 24 GB of state; tiny: for a trial"
    )
    parser.add_argument("--work-dir", type=Path, required=True, metavar="DIR", help="folder on the disk that is measured")
    parser.add_argument("--saves", default="3", help="checkpoints (default %(default)s)")
    parser.add_argument("--steps", default="10", help="timed steps beside each (default %(default)s)")
    parser.add_argument("--rows", default="4096", help="rows of the micro-batch (default %(default)s)")
    parser.add_argument("--frames", default="16", help="its frames (default %(default)s)")
    parser.add_argument("--synchronous", action="store_true", help="write while training waits")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto (default): cuda if there is one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write what was measured to this JSON file")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write.

    Raises:
        InputError: a number below 1, no such device, or a file that cannot be written.
    """
    saves, steps = positive("--saves", arguments.saves), positive("--steps", arguments.steps)
    rows, frames = positive("--rows", arguments.rows), positive("--frames", arguments.frames)
    file_to_write("--out", arguments.out)

    import torch

    from moss_train import platform
    from moss_train.platform.device import resolve_device

    platform.install()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but torch sees no CUDA device; use --device cpu")
    device = resolve_device(arguments.device)

    from moss_train.bench.checkpoint import MODELS, BenchRun, measure
    from moss_train.bench.saving import clear
    from moss_train.checkpoint.description import write_atomically

    folder: Path = arguments.work_dir
    if (folder / "checkpoints").exists():
        raise InputError(f"--work-dir {folder} holds checkpoints; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        bench = BenchRun(MODELS[arguments.model](), folder, device, [(rows, frames)], not arguments.synchronous)
        results = measure(bench, saves, steps)
    finally:
        clear(folder)
    _print(results)
    if arguments.out is not None:
        content = {**surroundings(VERSIONS, device), "rows": rows, "frames": frames, "results": results}
        write_atomically(arguments.out, json.dumps(content, indent=2) + "\n")
    return 0


def _print(results: dict[str, Any]) -> None:
    state, load = results["state_bytes"], results["load"]
    print(f"state {state / 1e9:.2f} GB, {results['bytes_per_parameter']:.2f} bytes a parameter")
    print(f"step alone {results['step_seconds_alone']:.4f} s; host memory took {results['reserve_seconds']:.2f} s more")
    for number, row in enumerate(results["saves"], start=1):
        during = "-" if row["step_seconds_during"] is None else f"{row['step_seconds_during']:.4f}"
        print(
            f"save {number}: blocked {row['stall_seconds']:.3f} s, published after {row['publish_seconds']:.2f} s "
            f"({state / row['publish_seconds'] / 1e9:.2f} GB/s), step meanwhile {during} s, "
            f"afterwards {row['step_seconds_after']:.4f} s"
        )
    print(f"check {load['check_gb_per_second']:.2f} GB/s, load {load['read_gb_per_second']:.2f} GB/s")
    print("floors: " + ", ".join(f"{name} {value:.2f}" for name, value in results["floors"].items()))
