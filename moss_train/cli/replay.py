"""`moss replay`: one global batch of a run once more, in one process."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import InputError

if TYPE_CHECKING:
    from moss_train.replay.losses import TokenLosses
    from moss_train.replay.run import ReplayedStep
    from moss_train.replay.views import StepView


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder, or a folder in its anomalies")
    parser.add_argument(
        "words", nargs="*", metavar="KEY=VALUE", help="step=N, and changes such as data.root=PATH where the data have moved"
    )
    parser.add_argument(
        "--micro-batch",
        type=int,
        action="append",
        default=[],
        metavar="K",
        help="this micro-batch of the global batch (repeatable)",
    )
    parser.add_argument("--loss", action="store_true", help="run the model of the newest earlier checkpoint: a loss by token")
    parser.add_argument("--checkpoint", type=Path, help="run the model of this run or checkpoint folder instead")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write frames, tensors, numbers and a page that opens in a browser"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--no-text", action="store_true", help="print the tables only, not the text of the samples")


def run(args: argparse.Namespace) -> int:
    """Read, compare, show, write."""
    from moss_train import platform

    platform.install()  # before anything of megatron-core
    from moss_train.replay.losses import choose_checkpoint, token_losses
    from moss_train.replay.views import view_step

    if args.out is not None and args.out.exists() and not args.out.is_dir():
        raise InputError(f"--out {args.out} is a file; give the name of a folder")
    found = _read(args)
    losses: TokenLosses | None = None
    if args.loss or args.checkpoint is not None:
        losses = token_losses(found, choose_checkpoint(found, args.checkpoint))
    view = view_step(found, losses)
    if args.out is not None:
        _write(args.out, found, view, losses)
    _print(args, view)
    return 0


def _read(args: argparse.Namespace) -> ReplayedStep:
    from moss_train.replay.anomaly import is_anomaly, read_anomaly_step
    from moss_train.replay.run import replay_step

    step, overrides = _split(args.words)
    if is_anomaly(args.folder):
        if step is not None:
            raise InputError(f"{args.folder} holds one step already; leave step={step} out")
        return read_anomaly_step(args.folder, overrides, args.micro_batch)
    if step is None:
        raise InputError(f"which step of {args.folder}? Add step=N")
    return replay_step(args.folder, step, overrides, args.micro_batch, _progress())


def _split(words: Sequence[str]) -> tuple[int | None, list[str]]:
    """The step, and the other KEY=VALUE."""
    step, overrides = None, []
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise InputError(f"{word!r} is not of the form KEY=VALUE, for example step=120 or data.root=shards")
        if name != "step":
            overrides.append(word)
        elif not value.isdecimal():
            raise InputError(f"step={value} is no number; give the number of an update, from 1")
        else:
            step = int(value)
    return step, overrides


def _progress() -> Callable[[int, int], None] | None:
    """A line on a terminal that counts what is passed over; None elsewhere."""
    if not sys.stderr.isatty():
        return None

    def report(done: int, total: int) -> None:
        end = "\n" if done == total else ""
        print(f"\rpassing over {done} of {total} micro-batches, undecoded", end=end, file=sys.stderr, flush=True)

    return report


def _write(out: Path, found: ReplayedStep, view: StepView, losses: TokenLosses | None) -> None:
    from moss_train.replay.files import write_files

    for path in write_files(out, found, view, losses):
        print(path, file=sys.stderr)


def _print(args: argparse.Namespace, view: StepView) -> None:
    from rich.console import Console

    from moss_train.replay.terminal import show
    from moss_train.replay.views import as_json

    if args.json:
        print(json.dumps(as_json(view), ensure_ascii=False))
    else:
        show(view, Console(), text=not args.no_text)
