"""`moss bench cross-attention`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.cli.bench.shared import chosen, file_to_write, positive, surroundings

if TYPE_CHECKING:
    from moss_train.bench.cross_attention import Result

VERSIONS = ("torch", "triton", "flash-attn-4", "nvidia-cutlass-dsl", "nvidia-cudnn-cu13", "nvidia-cudnn-cu12")
"""Packages whose versions are written beside the numbers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure."""
    parser.add_argument("--workloads", default="growing,offline,mixture", help="separated by commas (default %(default)s)")
    help_text = "backends and baselines, separated by commas (default %(default)s)"
    parser.add_argument("--backends", default="dense mask,no mask,torch,flex,varlen,flash", help=help_text)
    parser.add_argument("--rows", default="4096", help="text rows of the micro-batch (default %(default)s)")
    parser.add_argument("--frames", default="256,64", help="frames of 101 keys, separated by commas (default %(default)s)")
    parser.add_argument("--heads", default="32/8", help="query heads / key-value heads (default %(default)s)")
    parser.add_argument("--width", default="128", help="width of a head (default %(default)s)")
    parser.add_argument("--repeats", default="20", help="timed calls, of which the median is taken (default %(default)s)")
    parser.add_argument(
        "--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto (default) is cuda if there is one"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write what was measured to this JSON file")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write.

    Raises:
        InputError: an unknown name, a number below 1, no such device, or a file that cannot be written.
    """
    import torch

    from model.attention.cross.attention import BACKENDS
    from moss_train.bench.cross_attention import BASELINES, Shape
    from moss_train.bench.cross_attention import run as run_cross
    from moss_train.bench.workloads import WORKLOADS
    from moss_train.checkpoint.description import write_atomically

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but torch sees no CUDA device; use --device cpu")
    device = torch.device("cuda" if arguments.device != "cpu" and torch.cuda.is_available() else "cpu")
    names = chosen("--workloads", arguments.workloads, tuple(WORKLOADS))
    backends = chosen("--backends", arguments.backends, (*BACKENDS, *BASELINES))
    sizes = [positive("--frames", n) for n in arguments.frames.split(",")]
    heads, _, groups = arguments.heads.partition("/")
    shape = Shape(positive("--heads", heads), positive("--heads", groups or heads), positive("--width", arguments.width))
    if shape.heads % shape.groups:
        raise InputError(f"--heads is {arguments.heads}; the query heads must be a multiple of the key-value heads")
    rows, repeats = positive("--rows", arguments.rows), positive("--repeats", arguments.repeats)
    file_to_write("--out", arguments.out)
    workloads = [WORKLOADS[name](rows, frames) for name in names for frames in sizes]
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    print(_HEADER, flush=True)
    results, missing = run_cross(workloads, backends, shape, device, dtype, repeats, _print)
    for backend, reason in missing.items():
        print(f"{backend}: not measured: {reason}")
    if arguments.out is not None:
        content = {**surroundings(VERSIONS, device), "dtype": str(dtype), "results": results, "not_measured": missing}
        write_atomically(arguments.out, json.dumps(content, indent=2) + "\n")
    return 0


_HEADER = (
    f"{'workload':<30}{'backend':<12}{'forward ms':>11}{'both ms':>9}{'TFLOP/s':>9}{'extra GiB':>11}"
    f"{'first s':>9}{'plan ms':>9}{'out':>10}{'worst gradient':>16}"
)


def _print(result: Result) -> None:
    print(_line(result), flush=True)


def _line(result: Result) -> str:
    errors = dict(result.errors)
    out = f"{errors.pop('out'):.2e}" if errors else "-"
    worst = f"{max(errors.values()):.2e}" if errors else "-"
    return (
        f"{result.workload:<30}{result.backend:<12}{result.forward_ms:>11.2f}{result.both_ms:>9.2f}{result.tflops:>9.0f}"
        f"{result.extra_gib:>11.2f}{result.first_call_s:>9.1f}{result.plan_ms:>9.1f}{out:>10}{worst:>16}"
    )
