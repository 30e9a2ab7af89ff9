"""Dense captions: sentences about stretches of a video, flat, as two lists, or nested by level."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.row import Row
from data_pipeline.timeline.readers.sources import gathered
from data_pipeline.timeline.readers.videos import known_from, names_of, read_videos
from data_pipeline.timeline.timeline import Segment, Timeline
from model.errors import InputError

CAPTION = ("caption", "sentence", "text", "description", "desc", "narration", "label")
SUMMARY = ("caption", "video_caption", "summary", "global_caption", "description", "video_level")
SENTENCES = ("sentences", "captions", "descriptions", "texts")
LEVEL_OF_LIST = {
    "events": "event",
    "event_level": "event",
    "actions": "action",
    "action_level": "action",
    "steps": "action",
    "subevents": "action",
    "sub_events": "action",
    "segments": "",
    "captions": "",
    "dense_captions": "",
    "annotations": "",
    "clips": "",
    "timeline": "",
    "children": "",
    "shots": "",
}
"""Lists of captions, also inside a caption; the level that the name tells, or empty."""
TIMESTAMPS = ("timestamps",)


def read_captions(path: Path, options: ReadOptions) -> Iterator[Timeline]:
    """Timelines of dense captions; the text of a stretch is known at its end, unless the options say otherwise."""
    return read_videos(path, options, (*LEVEL_OF_LIST, *TIMESTAMPS), lambda row: (_segments(row, options), []))


def _segments(row: Row, options: ReadOptions) -> list[Segment]:
    single = gathered(row)
    if single is not None:
        return list(_captions(single, options.level or "event", options))
    found = []
    summary = next((n for n in SUMMARY if isinstance(row.get((n,)), str)), None)
    if summary is not None:
        found.append(Segment(begin=0.0, end=None, text=row.text((summary,)), level="video"))
    if row.name(TIMESTAMPS) is not None:
        return found + list(_captions(_paired(row), options.level or "event", options))
    return found + list(_nested(row, options.level or "event", options))


def _nested(row: Row, level: str, options: ReadOptions) -> Iterator[Segment]:
    """Captions of all lists of an object."""
    for name, told in LEVEL_OF_LIST.items():
        for items in filter(None, [row.rows((name,))]):
            yield from _captions(items, told or level, options)


def _captions(rows: list[Row], level: str, options: ReadOptions) -> Iterator[Segment]:
    """Captions, and below each one those inside it; one that cannot be used is passed over where the options allow it."""
    for row in rows:
        try:
            if row.name(tuple(LEVEL_OF_LIST)) is None or row.name(CAPTION) is not None:
                yield _caption(row, level, options)
        except InputError as error:
            options.fault(error)
        yield from _nested(row, "action" if level == "event" else level, options)


def _caption(row: Row, level: str, options: ReadOptions) -> Segment:
    span = row.span()
    assert span is not None  # it is needed, so that its absence is an error
    begin, end = span
    if end is None:
        raise row.lacks(("end", "stop", "end_time"))
    return Segment(
        begin=begin,
        end=end,
        text=row.text(CAPTION, needed=True),
        level=row.text(("level",)) or level,
        evident=known_from(begin, end, options, "end"),
        entities=names_of(row),
    )


def _paired(row: Row) -> list[Row]:
    """ActivityNet's two lists, of times and of sentences, as rows."""
    times, name = row.get(TIMESTAMPS), row.name(SENTENCES)
    texts = row.values[name] if name is not None else None
    if not isinstance(times, list) or not isinstance(texts, list):
        raise row.lacks(SENTENCES) if texts is None else row.error("timestamps", times, "it must be a list of pairs of seconds")
    if len(times) != len(texts):
        raise InputError(f"{row.where} has {len(times)} timestamps and {len(texts)} {name}; give one text for each")
    pairs = zip(times, texts, strict=True)
    return [Row({"segment": t, "sentence": s}, f"{row.where} timestamps[{i}]") for i, (t, s) in enumerate(pairs)]
