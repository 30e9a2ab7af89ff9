"""`moss data timeline`."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.cli.data.shared import progress

if TYPE_CHECKING:
    from data_pipeline.timeline.readers.options import ReadOptions
    from data_pipeline.timeline.timeline import Timeline

SHOWN = 5
"""Faults that are printed; the others are counted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    from data_pipeline.timeline.readers.registry import READERS

    kinds = "; ".join(f"{name}: {reader.help}" for name, reader in READERS.items())
    parser.add_argument("source", help="file or folder of annotations; `bundled` with --kind clips")
    parser.add_argument("out", help="file to write, one timeline a line")
    parser.add_argument("--kind", required=True, choices=list(READERS), help=kinds)
    parser.add_argument(
        "--evident",
        choices=("begin", "middle", "end"),
        help="when the text of a stretch can be known (default: captions, actions and speech at their end, moments at once)",
    )
    parser.add_argument("--level", help="level of the segments: video, event, action, speech, state or text")
    parser.add_argument("--media-root", help="folder of the videos (default: that of SOURCE)")
    parser.add_argument("--no-probe", action="store_true", help="open no video file for a missing duration")
    parser.add_argument("--last-end", action="store_true", help="take the last segment's end for a duration that nothing tells")
    parser.add_argument("--language", choices=("en", "zh"), help="of the texts (default: the row's, else en)")
    parser.add_argument("--license", default="", help="licence of all videos (default: the row's)")
    parser.add_argument("--source-name", default="", help="name of the data set (default: the row's, else that of SOURCE)")
    parser.add_argument("--split-key", default="", help="field whose value keeps videos in one split, such as channel")
    parser.add_argument("--raw", action="store_true", help="write what was read, without the rules that clean it")
    parser.add_argument("--strict", action="store_true", help="stop at the first row that cannot be used")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.timeline.readers.registry import read_source
    from data_pipeline.timeline.values import write_timelines

    _check(args)
    summary = Summary()
    with progress("reading videos") as advance:

        def on_video(name: str) -> None:
            summary.videos += 1
            advance(summary.videos, summary.videos)

        try:
            found = read_source(args.kind, args.source, _options(args, summary, on_video))
            write_timelines(args.out, _counted(found, summary, args.raw))
        except InputError as error:
            if not summary.faults:
                raise
            raise InputError(f"{error}; the last fault: {summary.last_fault}") from None
    summary.show(args.out)
    return 0


@dataclass
class Summary:
    """What was read."""

    videos: int = 0
    seconds: float = 0.0
    segments: Counter[str] = field(default_factory=Counter)
    """Level -> segments."""
    changes: Counter[str] = field(default_factory=Counter)
    """Kind -> changes."""
    questions: int = 0
    faults: list[str] = field(default_factory=list)
    more_faults: int = 0
    last_fault: str = ""

    def add_fault(self, text: str) -> None:
        """Remember the first ones and the last one, count the others."""
        self.last_fault = text
        if len(self.faults) < SHOWN:
            self.faults.append(text)
        else:
            self.more_faults += 1

    def show(self, out: str) -> None:
        """Print it."""
        print(f"{self.videos} videos, {self.seconds:.0f} s, in {out}")
        print(f"  segments: {_counts(self.segments)}")
        print(f"  changes: {_counts(self.changes)}")
        print(f"  questions: {self.questions}")
        if self.faults:
            print(f"  left out: {len(self.faults) + self.more_faults} rows or parts of rows")
            for text in self.faults:
                print(f"    {text}")
            if self.more_faults:
                print(f"    and {self.more_faults} more")


def _counts(counts: Counter[str]) -> str:
    parts = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    return f"{sum(counts.values())} ({parts})" if parts else "0"


def _options(args: argparse.Namespace, summary: Summary, on_video: Callable[[str], None]) -> ReadOptions:
    from pathlib import Path

    from data_pipeline.timeline.readers.options import ReadOptions

    return ReadOptions(
        evident=args.evident or "",
        level=args.level or "",
        media_root=Path(args.media_root) if args.media_root else None,
        probe=not args.no_probe,
        last_end=args.last_end,
        language=args.language or "",
        license=args.license,
        source=args.source_name,
        split_key=args.split_key,
        on_fault=None if args.strict else summary.add_fault,
        on_video=on_video,
    )


def _counted(timelines: Iterable[Timeline], summary: Summary, raw: bool) -> Iterator[Timeline]:
    from data_pipeline.timeline.changes import detect_changes
    from data_pipeline.timeline.normalise import normalise

    for timeline in timelines:
        clean = normalise(timeline)
        written = timeline if raw else clean
        summary.seconds += written.duration
        summary.segments.update(s.level for s in written.segments)
        summary.changes.update(c.kind for c in detect_changes(clean))
        summary.questions += len(written.questions)
        yield written


def _check(args: argparse.Namespace) -> None:
    """Refuses arguments that would have no effect."""
    if args.kind == "timelines" and (args.evident or args.level or args.split_key or args.last_end or args.no_probe):
        raise InputError(
            "--evident, --level, --split-key, --last-end and --no-probe have no effect with --kind timelines, whose segments are "
            "made already; leave them out"
        )
    if args.kind == "subtitles" and args.split_key:
        raise InputError(f"--split-key is {args.split_key}; subtitles have no such field; leave it out")
    if args.kind == "qa" and (args.evident or args.level):
        raise InputError("--evident and --level have no effect with --kind qa, which has no segments; leave them out")
