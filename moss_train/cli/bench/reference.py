"""`moss bench reference`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import InputError
from moss_train.cli.bench.shared import file_to_write, positive, print_markdown, show_tables, surroundings

if TYPE_CHECKING:
    from moss_train.bench.reference.cases import Options

VERSIONS = (
    "torch", "triton", "megatron-core", "transformer-engine", "flash-attn", "flash-attn-4", "nvidia-cudnn-cu13",
    "nvidia-cudnn-cu12", "nvidia-cublas", "deepspeed",
)  # fmt: skip
"""Packages whose versions are written beside the numbers."""
EXAMPLES = """examples:
  moss bench reference --mixture none --out reference.json       8 to 256 frames, the text cut to 10 layers
  moss bench reference --frames none --out mixture.json          samples of the published workload, alone and packed
  moss bench reference --frames 64 --mixture none --deepspeed    steps with updates too, ZeRO-2's beside ours
  moss bench reference --frames 256 --mixture none vision.keep_activations_gib=8     values of our side's config
  moss bench reference --table reference.json                    the tables of a file, as Markdown"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure."""
    parser.epilog = EXAMPLES
    many = "separated by commas (default %(default)s)"
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="further values of our side's config, as of `moss train`"
    )
    parser.add_argument("--frames", default="8,64,128,256", help=f"frames of a sample, or none; {many}")
    parser.add_argument(
        "--rows", default=None,
        help="rows of a sample, frames included, one for each of --frames (default: those that the published figures imply)",
    )  # fmt: skip
    parser.add_argument("--precision", default="bf16,fp8", help=f"of our side: bf16, fp8 or fp32; {many}")
    parser.add_argument("--sides", default="reference,ours", help=f"reference, ours; {many}")
    parser.add_argument(
        "--mixture", default="pt1,pt2,sft_offline,sft_realtime", help=f"stages whose samples both sides train on, or none; {many}"
    )
    parser.add_argument("--mixture-samples", default=None, help="of each stage (default: as many as two of its packs hold)")
    parser.add_argument(
        "--deepspeed", action="store_true", help="one sample with updates too: ZeRO-2 the reference's way, and ours"
    )
    parser.add_argument("--model", default="11b", help="of conf/model (default %(default)s)")
    parser.add_argument(
        "--text-layers", default=None, help="decoder layers (default: 10 with cross at 3 and 8, of smaller models all)"
    )
    parser.add_argument("--tower-layers", default=None, help="layers of the tower, local and global (default all)")
    parser.add_argument("--steps", default="5", help="measured steps of a sample at most (default %(default)s)")
    parser.add_argument("--case-seconds", default="6", help="behind these only a second step begins (default %(default)s)")
    parser.add_argument("--warmup", default="1", help="steps of a sample before them (default %(default)s)")
    parser.add_argument("--seed", default="0", help="of samples and weights (default %(default)s)")
    parser.add_argument("--limit-seconds", default=None, help="begin nothing that would take longer (default: no limit)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto (default): cuda if there is one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results to this JSON file, behind every case")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the tables of a file of results, and measure nothing")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write.

    Returns:
        1 where a case failed for another reason than memory or what was asked for.

    Raises:
        InputError: an option that nothing can be measured with.
    """
    if arguments.table is not None:
        return _print_tables(arguments.table)
    options = _options(arguments)
    file_to_write("--out", arguments.out)
    os.environ.setdefault("CUDA_DEVICE_MAX_CONNECTIONS", "1")
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # samples of many sizes behind each other

    import torch

    from moss_train import platform
    from moss_train.platform.device import resolve_device

    platform.install()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device is cuda, but torch sees no CUDA device; use --device cpu")
    device = resolve_device(arguments.device)

    from moss_train.bench.reference.cases import make_cases
    from moss_train.bench.reference.ratios import tables, told
    from moss_train.bench.reference.run import Comparison

    models = make_cases(options)
    head = {**surroundings(VERSIONS, device), "options": _plain(options)}

    def keep(results: dict[str, Any]) -> None:
        if arguments.out is not None:
            from moss_train.bench.plain import without_folders
            from moss_train.checkpoint.description import write_atomically

            write_atomically(arguments.out, json.dumps(without_folders(told({**head, **results})), indent=1) + "\n")

    results = Comparison(options, device, keep, _say).run(models)
    show_tables(tables({**head, **results}))
    return int(any("traceback" in case for case in results["cases"]))


def _options(arguments: argparse.Namespace) -> Options:
    from moss_train.bench.reference.cases import Options
    from moss_train.bench.subject import Cut

    text = None if arguments.text_layers is None else positive("--text-layers", arguments.text_layers)
    if text is None and arguments.model == "11b":
        text = 10
    samples = None if arguments.mixture_samples is None else positive("--mixture-samples", arguments.mixture_samples)
    tower = None if arguments.tower_layers is None else positive("--tower-layers", arguments.tower_layers)
    return Options(
        frames=_numbers("--frames", arguments.frames), rows=() if arguments.rows is None else _numbers("--rows", arguments.rows),
        precisions=_words("--precision", arguments.precision), sides=_words("--sides", arguments.sides),
        mixture=_words("--mixture", arguments.mixture), mixture_samples=samples,
        deepspeed=arguments.deepspeed, model=arguments.model, cut=Cut(text, tower), steps=positive("--steps", arguments.steps),
        case_seconds=_float("--case-seconds", arguments.case_seconds), warmup=positive("--warmup", arguments.warmup),
        seed=_numbers("--seed", arguments.seed)[0],
        limit_seconds=None if arguments.limit_seconds is None else _float("--limit-seconds", arguments.limit_seconds),
        overrides=tuple(arguments.overrides),
    )  # fmt: skip


def _words(option: str, given: str) -> tuple[str, ...]:
    words = tuple(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
    if not words:
        raise InputError(f"{option} is empty; give one or more values separated by commas")
    return () if words == ("none",) else words


def _numbers(option: str, given: str) -> tuple[int, ...]:
    words = [part.strip() for part in given.split(",") if part.strip()]
    if words == ["none"]:
        return ()
    for word in words:
        if not word.isdigit():
            raise InputError(f"{option} has {word!r}; it takes whole numbers of at least 0 separated by commas")
    if not words:
        raise InputError(f"{option} is empty; give one or more numbers separated by commas")
    return tuple(map(int, words))


def _float(option: str, given: str) -> float:
    try:
        return float(given)
    except ValueError:
        raise InputError(f"{option} is {given!r}; it takes a number") from None


def _plain(options: Options) -> dict[str, Any]:
    from dataclasses import asdict

    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()}


def _print_tables(path: Path) -> int:
    """A file's tables as Markdown, from its numbers."""
    from moss_train.bench.reference.ratios import tables
    from moss_train.bench.train.page import read

    print_markdown(tables(read(path)))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
