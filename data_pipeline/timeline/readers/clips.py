"""Clips with a caption, questions and lines that say what can be seen from a second on, as those that come with the package."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.row import Row
from data_pipeline.timeline.readers.sources import FILE
from data_pipeline.timeline.readers.videos import DURATION, Parts, known_from, read_videos
from data_pipeline.timeline.timeline import GivenQuestion, Segment, Timeline

LINES = ("lines",)
_STILLS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def bundled_annotations() -> Path:
    """The annotations of the real clips that come with the package."""
    import data_pipeline.assets

    return Path(data_pipeline.assets.__file__).with_name("annotations.json")


def read_clips(path: Path, options: ReadOptions) -> Iterator[Timeline]:
    """Timelines of clips; stills in the same file are passed over.

    The path `bundled` stands for the clips that come with the package.
    """
    if str(path) == "bundled":
        path = bundled_annotations()
        if options.media_root is None:
            options = dataclasses.replace(options, media_root=path.with_name("media"))
    return read_videos(path, options, (*LINES, "caption"), lambda row: _parts(row, options), _is_clip)


def _is_clip(row: Row) -> bool:
    return not row.text(FILE).lower().endswith(_STILLS)


def _parts(row: Row, options: ReadOptions) -> Parts:
    """Segments and questions of a clip."""
    lines = row.get(LINES)
    if not isinstance(lines, dict):
        raise row.error("lines", lines, "it must be an object of texts by second")
    timed = sorted(
        (row.time(second, "lines"), Row({"text": text}, f"{row.where} lines[{second!r}]")) for second, text in lines.items()
    )
    duration = row.seconds(DURATION)
    ends = [begin for begin, _ in timed[1:]] + [duration]
    segments = [
        Segment(
            begin=begin,
            end=end,
            text=line.text(("text",), needed=True).rstrip("."),
            level=options.level or "event",
            evident=known_from(begin, end, options, "begin"),
        )
        for (begin, line), end in zip(timed, ends, strict=True)
    ]
    caption = row.text(("caption",))
    if caption:
        segments.append(Segment(begin=0.0, end=None, text=caption, level="video"))
    return segments, _questions(row, duration)


def _questions(row: Row, duration: float | None) -> list[GivenQuestion]:
    """Pairs of question and answer; whoever has seen all of the clip can answer them."""
    pairs = row.get(("questions",)) or []
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):
        raise row.error("questions", pairs, "it must be a list of pairs of a question and its answer")
    evidence = None if duration is None else (0.0, duration)
    return [GivenQuestion(text=str(q), answer=str(a), evidence=evidence) for q, a in pairs]
