"""`moss data cache`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.config.arguments import add_config_arguments, config_from_args, print_config

if TYPE_CHECKING:
    from data_pipeline.shards.cache.warm import Outcome, Part
    from moss_train.config.schema import RunConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    add_config_arguments(parser)
    parser.add_argument("--folder", metavar="DIR", help="the cache folder (default: launcher.cache.folder)")
    parser.add_argument(
        "--all", action="store_true", help="copy what any node reads, also where NODE_RANK tells which node this is"
    )
    parser.add_argument("--dry-run", action="store_true", help="print what would be copied and removed, and change nothing")
    parser.add_argument("--status", action="store_true", help="list what the folder holds")
    parser.add_argument("--clear", action="store_true", help="remove everything that no run is reading")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    if args.status + args.clear + args.dry_run > 1:
        raise InputError("--status, --clear and --dry-run exclude each other; give one of them")
    if (args.status or args.clear) and args.folder is not None:
        return _status(Path(args.folder)) if args.status else _clear(Path(args.folder))
    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    settings = config.launcher.cache
    if args.folder is not None:
        settings = replace(settings, folder=os.path.abspath(args.folder))
    if not settings.folder:
        raise InputError("launcher.cache.folder is empty; name a folder on the node's own disk there, or with --folder")
    config.launcher.cache = settings
    if args.status or args.clear:
        return _status(Path(settings.folder)) if args.status else _clear(Path(settings.folder))
    return _warm(config, args)


def _warm(config: RunConfig, args: argparse.Namespace) -> int:
    from moss_train import platform

    platform.install()
    from data_pipeline.loader.shares import wanted_shards
    from data_pipeline.shards.cache.warm import warm_up
    from moss_train.parallel.node_readers import node_readers

    readers = None if args.all else node_readers(config, os.environ)
    evaluated = config.train.eval_batches > 0 and bool(config.data.validation)
    wanted = wanted_shards(config.data, readers, evaluated)
    with _bar() as bar:
        outcome = warm_up(config.launcher.cache, wanted, progress=bar, tell=_tell, dry_run=args.dry_run)
    _report(config.launcher.cache.folder, outcome, args.dry_run)
    return 0


def _report(folder: str, outcome: Outcome, dry_run: bool) -> None:
    for address in outcome.evicted:
        verb = "would remove" if dry_run else "removed"
        print(f"{verb} the copies of {address}: used longest ago, and no run reads them")
    for part in outcome.parts:
        print(_line(part, dry_run))
    if dry_run:
        return
    copied = outcome.copied
    print(f"copied {_size(copied.bytes)} in {copied.files} files; all copies in {folder} may take {_size(outcome.room)}")
    for sentence in copied.differing:
        _tell(f"{sentence}; it is not copied; find the damage with `moss data info FOLDER --check`")
    if copied.full:
        _tell(f"the disk of {folder} is full (5 % of it stay free); what is not there is read from where it lies")


def _line(part: Part, dry_run: bool) -> str:
    if part.busy:
        return f"{part.name}: read from {part.address}; a run still reads copies of its former shards in {part.folder}"
    there = part.here + (part.missing if dry_run else 0)
    shards = f"{there} of {part.needed} shards"
    if part.needed < part.shards:
        shards += f" that this node reads ({part.shards} in all)"
    if dry_run:
        details = f"{part.here} are there, {_size(part.missing_bytes)} to copy"
    else:
        details = f"{_size(part.here_bytes)} of {_size(part.needed_bytes)}"
    line = f"{part.name}: {shards} in {part.folder}, {details}"
    return line if there == part.needed else f"{line}; the rest is read from {part.address}"


def _size(count: int) -> str:
    from rich.filesize import decimal

    return decimal(count)


def _status(folder: Path) -> int:
    from data_pipeline.shards.cache.inventory import held

    found = held(folder)
    for one in found:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.last_used))
        state = "in use" if one.in_use else f"used {used}"
        print(f"{one.folder.name}  {_size(one.bytes)}  {one.shards} shards  {state}  {one.source}")
    print(f"{folder}: {len(found)} datasets, {_size(sum(one.bytes for one in found))}")
    return 0


def _clear(folder: Path) -> int:
    from data_pipeline.shards.cache.inventory import clear

    gone, stayed = clear(folder, _tell)
    print(f"removed the copies of {len(gone)} datasets from {folder}")
    for source in stayed:
        print(f"kept {source}, which a run is reading")
    return 0


def _tell(sentence: str) -> None:
    print(f"moss: {sentence}", file=sys.stderr, flush=True)


class _Quiet:
    """No bar: output that is no terminal gets the report alone."""

    def begin(self, total: int) -> None:
        """Nothing."""

    def advance(self, count: int) -> None:
        """Nothing."""


class _Bar:
    """Bytes, bytes a second and the time that is left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        columns = (TextColumn("copying"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("copying", total=None)

    def begin(self, total: int) -> None:
        """Show the bar."""
        self._progress.update(self._task, total=total)
        self._progress.start()

    def advance(self, count: int) -> None:
        """So many more bytes were copied."""
        self._progress.advance(self._task, count)

    def close(self) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()


@contextmanager
def _bar() -> Iterator[_Bar | _Quiet]:
    if not sys.stderr.isatty():
        yield _Quiet()
        return
    bar = _Bar()
    try:
        yield bar
    finally:
        bar.close()
