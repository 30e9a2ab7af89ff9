"""`moss eval import`: a benchmark's released annotations become scenarios and a manifest."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import InputError

if TYPE_CHECKING:
    from inference.evaluation.suites.suite import Imported


class _List(argparse.Action):
    """Prints the suites that a release belongs to."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from inference.evaluation.suites.registry import MODULES, get_suite

        for suite in map(get_suite, MODULES):
            if suite.load is not None:
                judge = "; some of its scores need a judge" if suite.needs_judge else ""
                print(f"{suite.name}: {suite.about}; modes {', '.join(suite.modes)}{judge}")
        parser.exit()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("--list", action=_List, nargs=0, help="say which benchmarks there are, and stop")
    parser.add_argument("suite", metavar="SUITE", help="name of the benchmark (--list)")
    parser.add_argument("annotations", type=Path, help="its released annotation file, or the folder of several")
    parser.add_argument("--videos", type=Path, required=True, metavar="DIR", help="folder below which its videos lie")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="scenario file; the manifest is put beside it")
    parser.add_argument("--fps", type=float, default=1.0, help="frames a second that the model is shown (default 1)")
    parser.add_argument("--max-frames", type=int, metavar="N", help="most frames of one clip (default: no limit)")
    parser.add_argument(
        "--context-seconds",
        type=float,
        metavar="SECONDS",
        help="clips of questions reach back so far, inf: to the video's beginning (default: as the benchmark's main table)",
    )
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="YAML of templates in place of ours, such as the official wording"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N entries")
    parser.add_argument("--release", default="", metavar="TEXT", help="what the manifest calls the release")


def run(arguments: argparse.Namespace) -> int:
    """Import and write; prints what was found and what was not."""
    from inference.evaluation.folder import manifest_path
    from inference.evaluation.suites.importing import save_import
    from inference.evaluation.suites.registry import get_suite
    from inference.evaluation.suites.suite import ImportOptions

    suite = get_suite(arguments.suite)
    if suite.load is None:
        raise InputError(f"suite {suite.name} belongs to no release: its scenarios are made, not imported")
    _check(arguments)
    options = ImportOptions(
        videos=arguments.videos,
        fps=arguments.fps,
        max_frames=arguments.max_frames,
        context_seconds=arguments.context_seconds,
        prompts=arguments.prompts,
        limit=arguments.limit,
        release=arguments.release,
    )
    imported = suite.load(arguments.annotations, options)
    save_import(arguments.out, manifest_path(arguments.out), imported, arguments.videos)
    _say(imported, arguments.out)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.fps < float("inf"):
        raise InputError(f"--fps is {arguments.fps}; it must be above 0")
    for name in ("max_frames", "limit"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise InputError(f"--{name.replace('_', '-')} is {value}; it must be at least 1")
    if arguments.context_seconds is not None and not arguments.context_seconds > 0:
        raise InputError(f"--context-seconds is {arguments.context_seconds}; it must be above 0")
    if not arguments.annotations.exists():
        raise InputError(f"{arguments.annotations} does not exist; give the released annotation file, or the folder of several")
    if arguments.out.is_dir():
        raise InputError(f"--out {arguments.out} is a folder; give the name of a file")


def _by_task(imported: Imported) -> Counter[str]:
    """Questions by task, and what is polled or streamed."""
    counts: Counter[str] = Counter()
    for scenario in imported.scenarios:
        counts.update(question.kind for question in scenario.questions)
        counts["polls"] += len(scenario.polls)
        counts["streams"] += bool(scenario.prompts)
    return +counts


def _say(imported: Imported, out: Path) -> None:
    manifest = imported.manifest
    print(f"{manifest.scenarios} scenarios with {manifest.items} items: {out}")
    for task, count in sorted(_by_task(imported).items()):
        print(f"  {task}: {count}")
    print(f"license of the annotations: {manifest.license}; videos have their own")
    if manifest.missing_videos:
        some = ", ".join(manifest.missing_videos[:3])
        left = len(manifest.missing_videos)
        print(f"videos not found, and left out with all that is asked about them: {left} ({some}{', …' if left > 3 else ''})")
    for note in manifest.notes[:5]:
        print(f"note: {note}")
    if len(manifest.notes) > 5:
        print(f"and {len(manifest.notes) - 5} more notes in the manifest")
    limit = f" --max-frames {manifest.max_frames}" if manifest.max_frames is not None else ""
    print(f"next: moss eval {out}{limit} --checkpoint CHECKPOINT --out FOLDER")
