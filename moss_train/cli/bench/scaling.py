"""`moss bench scaling`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import InputError
from moss_train.cli.bench.shared import file_to_write, positive, print_markdown, show_tables, surroundings, writer
from moss_train.cli.bench.train import VERSIONS, _float, _numbers, _words
from moss_train.cli.sigterm import raised_at_sigterm

if TYPE_CHECKING:
    from moss_train.bench.scaling.cases import Options

EXAMPLES = """examples:
  moss bench scaling --out scaling.json                      one GPU, then all of this machine, in every layout
  moss bench scaling --gpus 1,2 --layouts one,dp2,tp2.sp --limit-seconds 200 --out scaling.json
  moss bench scaling --cases sft,own                         frames dealt over all ranks beside each rank's own
  moss bench scaling --table scaling.json                    the tables of a file, as Markdown"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure."""
    parser.epilog = EXAMPLES
    many = "separated by commas (default %(default)s)"
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further values of the run's config")
    parser.add_argument("--gpus", default=None, help="numbers of GPUs, separated by commas (default: 1 and all; on a CPU 1,2)")
    parser.add_argument(
        "--cases", default="pt2,sft,own,layouts,strong",
        help="pt2: equal packs; sft: packs of uneven frames; own: those without dealing frames over ranks; layouts: pt2 beside "
        f"data parallel; strong: the same batch on fewer GPUs; {many}",
    )  # fmt: skip
    parser.add_argument("--layouts", default=None, help="names as tp2.sp.dp2, each of a number of --gpus (default: a choice)")
    parser.add_argument("--model", default="11b", help="of conf/model (default %(default)s)")
    parser.add_argument("--text-layers", default=None, help="decoder layers (default: of 11b 10, of smaller models all)")
    parser.add_argument("--tower-layers", default=None, help="layers of the tower, local and global (default all)")
    parser.add_argument("--precision", default="bf16", help="bf16 (default), fp8 or fp32")
    parser.add_argument("--optimizer", default="compact", help="compact (default) or adamw")
    parser.add_argument("--rows", default="4096", help="of a pack, frames included (default %(default)s)")
    parser.add_argument("--frames", default="64", help="of a pack, on the mean (default %(default)s)")
    parser.add_argument("--steps", default="3", help="measured steps of a case (default %(default)s)")
    parser.add_argument("--warmup", default="2", help="steps before them (default %(default)s)")
    parser.add_argument("--seed", default="0", help="of the packs (default %(default)s)")
    parser.add_argument("--no-profile", dest="profile", action="store_false", help="leave out what communication is exposed")
    parser.add_argument("--limit-seconds", default=None, help="then all ends with what it has (default: no limit)")
    parser.add_argument("--case-seconds", default="90", help="a case that takes longer counts as hung (default %(default)s)")
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
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # the ranks inherit it
    from moss_train import platform

    platform.install()
    there = _gpus(arguments.device)
    options = _options(arguments, there)
    file_to_write("--out", arguments.out)
    content = _measured(arguments.out, options, there)
    _show(content)
    return int(any("traceback" in case for case in content["cases"]))


def _gpus(device: str) -> int:
    """How many GPUs may be measured; 0 for the CPU."""
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() and device != "cpu" else 0
    if device == "cuda" and not there:
        raise InputError("--device is cuda, but torch sees no CUDA device; use --device cpu")
    return there


def _measured(out: Path | None, options: Options, there: int) -> dict[str, Any]:
    """All cases behind what they were measured on, written behind every case."""
    import torch

    from moss_train.bench.scaling.cases import make_cases
    from moss_train.bench.scaling.run import Scaling
    from moss_train.bench.scaling.tables import summary

    cases, left_out = make_cases(options)
    device = torch.device("cuda", 0) if there else torch.device("cpu")
    card = int(torch.cuda.get_device_properties(0).total_memory) if there else None
    head = {**surroundings(VERSIONS, device), "gpus": there, "options": _plain(options)}
    write = writer(out, head)

    def keep(results: dict[str, Any]) -> None:
        write({"summary": summary(results), **results})

    with raised_at_sigterm(SystemExit(128 + signal.SIGTERM)):  # so that the ranks are ended too
        return {**head, **Scaling(options, device.type, keep, _say, card=card).run(cases, left_out)}


def _options(arguments: argparse.Namespace, there: int) -> Options:
    from moss_train.bench.scaling.cases import Options
    from moss_train.bench.subject import Cut

    text = None if arguments.text_layers is None else positive("--text-layers", arguments.text_layers)
    if text is None and arguments.model == "11b":
        text = 10
    tower = None if arguments.tower_layers is None else positive("--tower-layers", arguments.tower_layers)
    gpus = tuple(dict.fromkeys((1, there or 2)))
    if arguments.gpus is not None:
        gpus = tuple(positive("--gpus", word) for word in _words("--gpus", arguments.gpus))
    if there and max(gpus) > there:
        raise InputError(f"--gpus has {max(gpus)}, and torch sees {there} GPUs; give at most those, or --device cpu")
    case_seconds = _float("--case-seconds", arguments.case_seconds)
    return Options(
        gpus=gpus, kinds=_words("--cases", arguments.cases),
        layouts=() if arguments.layouts is None else _words("--layouts", arguments.layouts), model=arguments.model,
        cut=Cut(text, tower), precision=arguments.precision, optimizer=arguments.optimizer,
        rows=positive("--rows", arguments.rows), frames=positive("--frames", arguments.frames),
        steps=positive("--steps", arguments.steps), warmup=positive("--warmup", arguments.warmup),
        seed=_numbers("--seed", arguments.seed)[0], profile=arguments.profile,
        limit_seconds=_float("--limit-seconds", arguments.limit_seconds),
        case_seconds=90.0 if case_seconds is None else case_seconds, overrides=tuple(arguments.overrides),
    )  # fmt: skip


def _plain(options: Options) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(options)


def _show(content: dict[str, Any]) -> None:
    from moss_train.bench.scaling.tables import tables, untold

    show_tables(tables(content))
    for sentence in untold(content):
        print(sentence)


def _print_tables(path: Path) -> int:
    """A file's tables as Markdown."""
    from moss_train.bench.scaling.tables import tables, untold
    from moss_train.bench.train.page import read

    content = read(path)
    print_markdown(tables(content))
    for sentence in untold(content):
        print(f"\n{sentence}")
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
