"""`moss data prepare`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.cli.data.shared import one_line

if TYPE_CHECKING:
    from data_pipeline.shards.transcode import TranscodeSettings

_EXIT_INTERRUPTED = 130
_LINE_SECONDS = 60.0
_UNITS = {"K": 10**3, "M": 10**6, "G": 10**9}
_TRANSCODING = ("short_side", "gop_seconds", "crf", "preset", "tune")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("annotations", help="annotation file (docs/data-schema.md), such as `moss data import` writes")
    parser.add_argument("out", help="folder to write")
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes (default: the cores that this process may use)",
    )
    parser.add_argument("--samples-per-shard", type=int, default=1000, help="most samples in one tar (default: 1000)")
    parser.add_argument("--max-shard-bytes", type=_bytes, metavar="N", help="most bytes in one tar, such as 500M or 2G")
    parser.add_argument("--seed", type=int, help="shuffle the samples with this seed (default: keep their order)")
    parser.add_argument("--skip-bad", action="store_true", help="leave out lines that cannot be used, instead of stopping")
    parser.add_argument("--require-license", action="store_true", help="refuse samples without a licence")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")
    parser.add_argument("--restart", action="store_true", help="forget what an unfinished run has kept")
    group = parser.add_argument_group("transcoding", "Videos are stored as they are unless one of these is given.")
    group.add_argument("--transcode", action="store_true", help="transcode with the values below")
    group.add_argument("--short-side", type=int, metavar="PIXELS", help="shrink to this (default: 560); never enlarges")
    group.add_argument("--gop-seconds", type=float, metavar="S", help="most seconds between two keyframes (default: 2)")
    group.add_argument("--crf", type=int, help="x264's quality, lower is better (default: 23)")
    group.add_argument("--preset", help="x264's effort (default: veryfast)")
    group.add_argument("--tune", help="fastdecode, for larger files that decode faster, or none (default: fastdecode)")
    group.add_argument("--force", action="store_true", help="transcode also clips that are within these values already")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.shards.plan import PrepareOptions
    from data_pipeline.shards.prepare import prepare

    options = PrepareOptions(
        samples_per_shard=args.samples_per_shard,
        max_shard_bytes=args.max_shard_bytes,
        shuffle_seed=args.seed,
        skip_bad=args.skip_bad,
        require_license=args.require_license,
        transcode=_transcoding(args),
    )
    try:
        with _progress() as advance:
            summary = prepare(
                args.annotations,
                args.out,
                options,
                workers=args.workers,
                overwrite=args.overwrite,
                restart=args.restart,
                on_lines=advance,
            )
    except KeyboardInterrupt:
        print(f"moss: interrupted; {_how_to_go_on(args)}", file=sys.stderr, flush=True)
        return _EXIT_INTERRUPTED
    print(f"{args.out}: {one_line(summary)}")
    if summary["skipped"]:
        print(f"  {summary['skipped']} lines were left out; reasons in {Path(args.out) / 'prepare_report.json'}")
    return 0


def _transcoding(args: argparse.Namespace) -> TranscodeSettings | None:
    from data_pipeline.shards.transcode import TranscodeSettings

    given = {name: getattr(args, name) for name in _TRANSCODING if getattr(args, name) is not None}
    return TranscodeSettings(force=args.force, **given) if given or args.transcode or args.force else None


def _how_to_go_on(args: argparse.Namespace) -> str:
    from data_pipeline.shards.partial import finished_groups, partial_folder

    target = Path(args.out)
    kept = finished_groups(target)
    if not kept:
        return "nothing was finished yet, so the same command begins anew"
    return f"{kept} finished shards are kept in {partial_folder(target)}: the same command goes on with them"


def _bytes(text: str) -> int:
    unit = _UNITS.get(text[-1:].upper(), 1)
    digits = text[:-1] if unit > 1 else text
    try:
        return int(float(digits) * unit)
    except (ValueError, OverflowError):
        raise InputError(f"--max-shard-bytes is {text!r}; give a number of bytes, such as 500M or 2G") from None


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Yields a function of (lines done, lines in all): a bar on a terminal, else a line a minute."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading annotations", total=None, rate="")
        meter = _Meter()

        def advance(done: int, total: int) -> None:
            rate = meter.rate(done)
            bar.update(task, description="writing shards", completed=done, total=total, rate=rate)
            if bar.disable and meter.line_is_due():
                print(f"moss: {done} of {total} lines in shards, {rate}", file=sys.stderr, flush=True)

        yield advance


class _Meter:
    """Lines a second since the first call; what an earlier run had finished tells nothing about the rate of this one."""

    def __init__(self) -> None:
        self._kept = -1
        self._begin = self._line = time.monotonic()

    def rate(self, done: int) -> str:
        if self._kept < 0:
            self._kept, self._begin = done, time.monotonic()
        spent = time.monotonic() - self._begin
        return f"{(done - self._kept) / spent:.0f}/s" if spent > 0.5 else ""

    def line_is_due(self) -> bool:
        if time.monotonic() - self._line < _LINE_SECONDS:
            return False
        self._line = time.monotonic()
        return True
