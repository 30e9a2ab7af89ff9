"""Event annotations: labelled stretches (ActivityNet, COIN), narrations of single moments (Ego4D), or a table of
begin,end,label."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.row import Row
from data_pipeline.timeline.readers.sources import gathered
from data_pipeline.timeline.readers.videos import known_from, names_of, read_videos
from data_pipeline.timeline.timeline import CHANGES, LEVELS, Segment, Timeline
from model.errors import InputError

LABEL = (
    "label",
    "text",
    "narration_text",
    "summary_text",
    "caption",
    "sentence",
    "action",
    "event",
    "step",
    "name",
    "class",
    "description",
    "narration",
)
LISTS = ("annotations", "annotation", "segments", "events", "actions", "steps", "labels", "narrations", "summaries")
PASSES = ("narration_pass_1", "narration_pass_2")
"""Ego4D: two people narrated each video; the first one that has anything is taken."""
POINT = ("timestamp_sec", "narration_time", "t", "second")


def read_events(path: Path, options: ReadOptions) -> Iterator[Timeline]:
    """Timelines of event annotations.

    A stretch is an action, whose label is known at its end unless the options say otherwise; a single moment is an event that is
    known there. Rows with a subject and a value tell a state (`normalise` makes states of them).
    """
    return read_videos(path, options, (*LISTS, *PASSES), lambda row: (_segments(row, options), []))


def _segments(row: Row, options: ReadOptions) -> list[Segment]:
    rows = gathered(row)
    if rows is None:
        holders = [row, *_passes(row)]
        rows = [item for holder in holders for name in LISTS for item in holder.rows((name,)) or []]
    found = []
    for item in rows:
        try:
            found.append(_event(item, options))
        except InputError as error:
            options.fault(error)
    return found


def _passes(row: Row) -> list[Row]:
    for name in PASSES:
        inner = row.get((name,))
        if isinstance(inner, dict) and inner.get("narrations"):
            return [Row(inner, f"{row.where} {name}")]
    return []


def _event(row: Row, options: ReadOptions) -> Segment:
    span = row.span(point=POINT)
    assert span is not None  # it is needed, so that its absence is an error
    begin, end = span
    subject, value = row.text(("subject",)), row.text(("value",))
    label = row.text(LABEL) or (f"{subject}: {value}" if subject and value else "")
    if not label:
        raise row.lacks(LABEL)
    level = options.level or row.text(("level",)) or ("event" if end is None else "action")
    _known("level", level, LEVELS, row)
    state = bool(subject and value)
    # A moment of a state is where it begins: its end is open. Any other moment is an event without length.
    evident = row.seconds(("evident",))
    if evident is None:
        evident = known_from(begin, end, options, "begin" if end is None or state else "")
    elif evident < begin:
        raise row.error("evident", evident, f"it must not lie before begin, {begin:g} s")
    return Segment(
        begin=begin,
        end=begin if end is None and not state else end,
        text=label,
        level=level,
        evident=evident,
        subject=subject,
        value=value,
        entities=names_of(row),
        change=_known("change", row.text(("change",)), ("", *CHANGES), row),
        salience=_salience(row),
    )


def _known(name: str, value: str, allowed: tuple[str, ...], row: Row) -> str:
    if value not in allowed:
        raise row.error(name, value, f"use one of {', '.join(a for a in allowed if a)}")
    return value


def _salience(row: Row) -> float:
    value = row.seconds(("salience",))  # a number as any other
    if value is not None and not 0 <= value <= 1:
        raise row.error("salience", value, "it must lie within 0..1")
    return 1.0 if value is None else value
