"""`moss bench fleet`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import InputError
from moss_train.cli.bench.shared import chosen, file_to_write, positive, print_markdown, show_tables, surroundings, writer
from moss_train.cli.sigterm import raised_at_sigterm

if TYPE_CHECKING:
    from moss_train.bench.fleet.machine import Machine
    from moss_train.bench.fleet.runs import Options

VERSIONS = (
    "torch", "triton", "megatron-core", "transformer-engine", "flash-attn", "flash-attn-4", "megatron-energon", "av",
)  # fmt: skip
"""Packages whose versions are written beside the numbers."""
PARTS = ("rates", "checkpoint", "kill", "reshard")
EXAMPLES = """examples:
  moss bench fleet --data CLIPS --out fleet.json                     all GPUs: rates of 11B, a checkpoint, a kill, half the GPUs
  moss bench fleet --parts rates --steps 20 --data CLIPS             rates alone
  moss bench fleet --parts checkpoint --checkpoint-gb all            the whole 85 GB; the machine holds them twice
  moss bench fleet --table fleet.json                                its tables as Markdown
CLIPS is what moss bench train --make-data CLIPS writes; without it some clips are rendered."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure."""
    parser.epilog = EXAMPLES
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="further values of every run's config, as of `moss train`"
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="separated by commas (default %(default)s)")
    parser.add_argument("--gpus", default=None, help="ranks (default: all GPUs; on a CPU 2)")
    parser.add_argument("--model", default="11b", help="of conf/model (default %(default)s)")
    parser.add_argument("--stage", default="pt2", help="of conf/stage (default %(default)s)")
    parser.add_argument("--rows", default="4096", help="of a pack, frames included (default %(default)s)")
    parser.add_argument("--frames", default="64", help="of a pack (default %(default)s)")
    parser.add_argument("--micro-batches", default="1", help="packs of each GPU in a step (default %(default)s)")
    parser.add_argument("--layers", default=None, help="decoder layers (default all)")
    parser.add_argument("--tower-layers", default=None, help="layers of the tower (default all)")
    parser.add_argument(
        "--checkpoint-gb", default="20", help="the run that is saved is cut to it; all cuts nothing (default %(default)s)"
    )
    parser.add_argument("--save-step", default="24", help="behind which the checkpoint is taken (default %(default)s)")
    parser.add_argument("--repeated", default="4", help="steps that are done again and compared (default %(default)s)")
    parser.add_argument(
        "--reshard", default="auto", choices=["auto", "half", "tensor"],
        help="half of the GPUs, or other sizes of tensor parallelism on all; auto (default): half, where it fits",
    )  # fmt: skip
    parser.add_argument(
        "--at-once", action="store_true", help="start the run in another layout at the moment of the kill: less time, less exact"
    )
    parser.add_argument("--steps", default="8", help="measured steps of the rates (default %(default)s)")
    parser.add_argument("--warmup", default="3", help="steps before them (default %(default)s)")
    parser.add_argument("--readers", default="8", help="reader processes for each GPU (default %(default)s)")
    parser.add_argument(
        "--not-deterministic", action="store_true", help="no train.deterministic in the run that is saved: faster kernels"
    )
    parser.add_argument("--data", type=Path, metavar="DIR", help="clips of moss bench train --make-data DIR (default: rendered)")
    parser.add_argument("--work-dir", type=Path, metavar="DIR", help="for the runs' folder (default: /dev/shm)")
    parser.add_argument("--limit-seconds", default="540", help="then all ends with what it has (default %(default)s)")
    parser.add_argument("--card-gib", default=None, help="memory that layouts are chosen for (default: the GPU's)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="auto (default): cuda if there is one")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the results to this JSON file, behind every part")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the tables of a file of results, and measure nothing")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write.

    Returns:
        1 where a part was not done, or steps in another layout differ by more than the tolerance.

    Raises:
        InputError: an option that nothing can be measured with.
        KeyboardInterrupt: SIGTERM or Ctrl-C; every process is ended and the results so far are written.
    """
    if arguments.table is not None:
        return _print_tables(arguments.table)
    parts = chosen("--parts", arguments.parts, PARTS)
    options = _options(arguments)
    gpus = None if arguments.gpus is None else positive("--gpus", arguments.gpus)
    card = None if arguments.card_gib is None else int(_above_zero("--card-gib", arguments.card_gib) * 2**30)
    limit = _above_zero("--limit-seconds", arguments.limit_seconds)
    file_to_write("--out", arguments.out)

    from moss_train import platform
    from moss_train.bench.fleet.machine import this_machine

    platform.install()
    found = _measured(arguments, options, parts, this_machine(arguments.device, gpus, card), limit)

    from moss_train.bench.fleet.tables import tables

    show_tables(tables(found))
    measured = [found.get(part, {"not_done": ""}) for part in parts]
    return int(any("not_done" in part or part.get("within_tolerance") is False for part in measured))


def _measured(
    arguments: argparse.Namespace, options: Options, parts: Sequence[str], machine: Machine, limit: float
) -> dict[str, Any]:
    """What was found, written behind every part."""
    import torch

    from moss_train.bench.fleet.measure import measure

    head = {**surroundings(VERSIONS, torch.device("cpu")), "options": {**asdict(options), "parts": parts}}
    head["hardware"] = {"device": machine.name, "gpus": machine.ranks, "memory_gib": round(machine.card / 2**30, 1)}
    with raised_at_sigterm(KeyboardInterrupt()):
        return measure(
            options, machine, parts, data=arguments.data, work_dir=arguments.work_dir, limit=limit,
            deterministic=not arguments.not_deterministic, keep=writer(arguments.out, head), say=_say,
        )  # fmt: skip


def _options(arguments: argparse.Namespace) -> Options:
    from moss_train.bench.fleet.runs import Options

    size = arguments.checkpoint_gb
    return Options(
        model=arguments.model, stage=arguments.stage, rows=positive("--rows", arguments.rows),
        frames=positive("--frames", arguments.frames), micro_batches=positive("--micro-batches", arguments.micro_batches),
        layers=None if arguments.layers is None else positive("--layers", arguments.layers),
        tower_layers=None if arguments.tower_layers is None else positive("--tower-layers", arguments.tower_layers),
        checkpoint_gb=None if size == "all" else _above_zero("--checkpoint-gb", size),
        readers=positive("--readers", arguments.readers), steps=positive("--steps", arguments.steps),
        warmup=positive("--warmup", arguments.warmup), save_step=positive("--save-step", arguments.save_step),
        repeated=positive("--repeated", arguments.repeated), reshard=arguments.reshard, at_once=arguments.at_once,
        overrides=tuple(arguments.overrides),
    )  # fmt: skip


def _above_zero(option: str, given: str) -> float:
    try:
        value = float(given)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise InputError(f"{option} is {given!r}; it takes a number above 0")
    return value


def _print_tables(path: Path) -> int:
    from moss_train.bench.fleet.tables import tables

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"--table {path} cannot be read ({error}); give a file that --out has written") from None
    print_markdown(tables(content))
    return 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
