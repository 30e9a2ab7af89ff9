"""`moss data generate`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.errors import InputError

if TYPE_CHECKING:
    from data_pipeline.generator.build.config import BuildConfig

_EXIT_INTERRUPTED = 130
_LINE_SECONDS = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder of the corpus; the same command goes on after a kill")
    parser.add_argument("--config", default="world", help="a file, or a name in conf/generator (default: world)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="such as rows.train=100000 behaviours.delayed=0.2")
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes (default: the cores that this process may use); the files do not depend on it",
    )
    parser.add_argument("--reslice", type=float, metavar="RATE", help="lay out the rows of --from at so many tokens a second")
    parser.add_argument("--from", dest="old", type=Path, metavar="OLD", help="a finished corpus, for --reslice")
    parser.add_argument("--dry-run", action="store_true", help="say what would be made, and what it would cost, and stop")
    parser.add_argument("--overwrite", action="store_true", help="begin anew where OUT was begun with other settings")
    parser.add_argument("--print-config", action="store_true", help="print all settings and stop")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    import yaml

    from data_pipeline.generator.build.run import build
    from moss_train.config.build import to_plain

    if (args.reslice is None) != (args.old is None):
        raise InputError("--reslice RATE and --from OLD belong together; give both")
    if args.old is not None and args.overrides:
        raise InputError(f"{args.overrides[0]} has no place beside --reslice, which changes the rate alone; leave it out")
    config = load_settings(args.config, args.overrides) if args.old is None else _settings_of(args.old)
    if args.print_config:
        print(yaml.safe_dump(to_plain(config), sort_keys=False, allow_unicode=True), end="")
        return 0
    if args.dry_run:
        from data_pipeline.generator.build.estimate import estimate

        print("\n".join(f"{name}: {value}" for name, value in estimate(config).items()))
        return 0
    try:
        with _progress() as progress:
            if args.reslice is not None:
                from data_pipeline.generator.build.reslice import reslice

                summary = reslice(
                    config, args.old, args.out, args.reslice, workers=args.workers, overwrite=args.overwrite, progress=progress
                )
            else:
                summary = build(config, args.out, workers=args.workers, overwrite=args.overwrite, progress=progress)
    except KeyboardInterrupt:
        print("moss: interrupted; finished parts are kept and the same command goes on with them", file=sys.stderr, flush=True)
        return _EXIT_INTERRUPTED
    _print_summary(args.out, summary)
    return 0


def load_settings(name: str, overrides: Sequence[str]) -> BuildConfig:
    """The settings of a file or of a name in conf/generator, changed by `key=value`.

    Raises:
        InputError: there is no such file, it is not YAML, or a key or value is not known.
    """
    import yaml

    from data_pipeline.generator.build.config import BuildConfig
    from moss_train.config.build import build as make
    from moss_train.config.compose import conf_dir

    path = Path(name)
    if not path.is_file():
        known = conf_dir() / "generator"
        path = known / f"{name}.yaml"
        if not path.is_file():
            names = ", ".join(sorted(p.stem for p in known.glob("*.yaml")))
            raise InputError(f"--config {name} is no file and no name in {known}; known names: {names}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no settings; write key: value lines")
    for override in overrides:
        _override(values, override)
    return make(BuildConfig, values)


def _settings_of(old: Path) -> BuildConfig:
    """The settings of a corpus."""
    from data_pipeline.generator.build.config import BuildConfig
    from data_pipeline.generator.build.folder import BuildFolder
    from moss_train.config.build import build as make

    values = BuildFolder(old).settings() if old.is_dir() else None
    if values is None:
        raise InputError(f"--from {old} is no corpus of `moss data generate`; give the folder that it wrote")
    return make(BuildConfig, {key: value for key, value in values.items() if key not in ("version", "resliced_from")})


def _override(values: dict[str, Any], override: str) -> None:
    import yaml

    key, mark, text = override.partition("=")
    if not mark or not key.strip():
        raise InputError(f"override {override!r} cannot be read; write key=value")
    *parents, last = key.strip().split(".")
    for parent in parents:
        inner = values.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InputError(f"override {override!r}: {parent} is a value, not a group of settings")
        values = inner
    try:
        values[last] = yaml.safe_load(text) if text else ""
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: {text!r} is not YAML") from None


def _print_summary(out: Path, summary: dict[str, Any]) -> None:
    for name, count in summary["rows"].items():
        shards = summary["shards"].get(name)
        print(f"{out / 'shards' / name if shards else out / 'samples' / (name + '.jsonl')}: {count} samples")
    for split, count in summary["scenarios"].items():
        print(f"{out / 'scenarios' / (split + '.jsonl')}: {count} scenarios")
    rejected = sum(row["count"] for row in summary["rejections"])
    left_out = sum(entry["count"] for entry in summary["dropped"].values())
    rate = f", {summary['rows_per_second']:.0f} rows a second" if summary["rows_per_second"] else ""
    print(f"{rejected} attempts rejected, {left_out} rows left out by gates{rate}")
    if (out / "report.html").is_file():
        print(f"report card: {out / 'report.html'}")


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    """Yields a function of (what, done, in all): bars on a terminal, else a line a minute."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description:>20}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    begun: dict[str, tuple[Any, int, float]] = {}
    last_line = time.monotonic()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def advance(what: str, done: int, total: int) -> None:
            nonlocal last_line
            if what not in begun:
                begun[what] = (bar.add_task(what, total=total, rate=""), done, time.monotonic())
            task, first, since = begun[what]
            spent = time.monotonic() - since
            rate = f"{(done - first) / spent:.0f}/s" if spent > 0.5 else ""
            bar.update(task, completed=done, total=total, rate=rate)
            if bar.disable and time.monotonic() - last_line >= _LINE_SECONDS:
                print(f"moss: {what} {done} of {total} {rate}", file=sys.stderr, flush=True)
                last_line = time.monotonic()

        yield advance
