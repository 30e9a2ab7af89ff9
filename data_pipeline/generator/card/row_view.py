"""A row as tracks over its frames: who says what when, what it rests on, and what was true."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_pipeline.generator.card.choose import Chosen
from data_pipeline.realtime.dialogue import Dialogue, Utterance
from data_pipeline.timeline.timeline import Segment, Timeline

THUMBNAIL = 76
"""Pixels that a picture takes with its gap."""
PICTURES = 48
"""Of a row at most; of more frames, evenly chosen ones are shown."""
SUBJECTS, EVENTS = 6, 60
"""Tracks of states, and events, that are shown at most."""
_LETTER, _LINES = 6.4, 3
"""Pixels of a letter, and lines that a text may take beneath its frame before it takes room of the next ones."""
_NEAR = 1e-6


@dataclass
class Item:
    """A box of a track."""

    start: int
    """Column: index of a frame."""
    end: int
    """Column behind it."""
    text: str
    css: str = ""
    title: str = ""
    note: str = ""
    """In small letters in front of the text."""
    unsaid: str = ""
    """Text that was cut off."""


@dataclass
class Track:
    """A line of boxes, or several where they would cover each other."""

    name: str
    lanes: list[list[Item]] = field(default_factory=list)


@dataclass
class Picture:
    """A frame of the strip."""

    column: int
    span: int
    """Columns up to the next one."""
    time: float
    image: str = ""
    """Data URI; empty where it cannot be shown."""


@dataclass
class RowView:
    """All that the page shows of a row."""

    id: str
    behaviour: str
    facts: list[tuple[str, str]]
    columns: int
    width: int
    """Pixels of a column."""
    pictures: list[Picture]
    tracks: list[Track]
    lines: list[str]
    """The same in words, in order of time."""
    note: str = ""
    """Why the pictures are missing."""


def row_view(chosen: Chosen) -> RowView:
    """Arrange a row; the pictures are filled in by `write`."""
    dialogue = chosen.dialogue
    frames = len(dialogue.frame_times)
    width = next((pixels for most, pixels in ((24, THUMBNAIL), (64, 44), (160, 28)) if frames <= most), 16)
    every = max(-(-THUMBNAIL // width), -(-frames // PICTURES))
    pictures = [Picture(i, min(every, frames - i), dialogue.frame_times[i]) for i in range(0, frames, every)]
    tracks = [
        Track("user", _lanes([_user_item(dialogue, i, width) for i in range(len(dialogue.users))])),
        Track("slots", [_slots(dialogue)]),
        Track("assistant", _lanes([_spoken_item(dialogue, i, width) for i in range(len(dialogue.utterances))])),
        Track("evidence", _lanes([_evidence_item(dialogue, i) for i in range(len(dialogue.utterances))])),
    ]
    if chosen.timeline is not None:
        tracks += _truth(dialogue, chosen.timeline, width)
    tracks = [track for track in tracks if any(track.lanes)]
    columns = max([frames, *(item.end for track in tracks for lane in track.lanes for item in lane)])
    return RowView(dialogue.id, chosen.behaviour, _facts(chosen), columns, width, pictures, tracks, _lines(dialogue))


def _facts(chosen: Chosen) -> list[tuple[str, str]]:
    dialogue = chosen.dialogue
    facts = [
        ("split", chosen.part.parent.name),
        ("behaviours", ", ".join(dialogue.behaviours)),
        ("language", dialogue.language),
        ("frames", f"{len(dialogue.frame_times)} at {dialogue.fps:g} a second"),
        ("speaks at", f"{dialogue.emission_tps:g} tokens a second" if dialogue.emission_tps else "no rate"),
        ("source", dialogue.source or "unknown"),
        ("licence", dialogue.license or "unknown"),
        ("video", dialogue.video or "made from a seed"),
    ]
    judge = dialogue.quality.get("judge")
    return [*facts, ("judge", str(judge))] if judge is not None else facts


def _column(dialogue: Dialogue, t: float) -> int:
    """The frame that is shown at second t; the first one before there is any."""
    return max(0, bisect.bisect_right(dialogue.frame_times, t + _NEAR) - 1)


def _wide(text: str, width: int, start: int, end: int) -> int:
    """Column behind a text that starts in a column: behind its own ones, or as far as it takes to read it."""
    pixels = max(THUMBNAIL + 20.0, len(text) * _LETTER / _LINES) if len(text) > 8 else len(text) * _LETTER + 12
    return max(end, start + max(1, -(-int(pixels) // width)))


def _user_item(dialogue: Dialogue, index: int, width: int) -> Item:
    turn = dialogue.users[index]
    # A turn lies between two frames; it is shown where it can first be answered.
    start = min(bisect.bisect_left(dialogue.frame_times, turn.t + _NEAR), len(dialogue.frame_times) - 1)
    title = f"turn {index}, {turn.behaviour or 'no behaviour'}: arrives at {turn.t:g} s"
    return Item(start, _wide(turn.text, width, start, start + 1), turn.text, "user", title, f"turn {index} · {turn.t:g} s")


def _slots(dialogue: Dialogue) -> list[Item]:
    items = []
    for frame, t in enumerate(dialogue.frame_times):
        speaking = [i for i, u in enumerate(dialogue.utterances) if u.span and u.span[0] - _NEAR <= t <= u.span[1] + _NEAR]
        if speaking:
            items.append(Item(frame, frame + 1, f"#{speaking[0]}", "speaks", f"{t:g} s: says utterance {speaking[0]}"))
        else:
            items.append(Item(frame, frame + 1, "·", "silent", f"{t:g} s: silence"))
    return items


def _spoken_item(dialogue: Dialogue, index: int, width: int) -> Item:
    utterance = dialogue.utterances[index]
    notes = [f"#{index} {utterance.kind}"]
    if utterance.corrects is not None:
        notes.append(f"corrects #{utterance.corrects}")
    said = utterance.text if utterance.said is None else utterance.said
    css, unsaid = "said", utterance.text[len(said) :]
    if utterance.span is None:
        notes.append("never said")
        css, said, unsaid = "unsaid", "", utterance.text
    elif utterance.preempted:
        notes.append("cut off")
        css = "cut"
    elif utterance.corrects is not None:
        css = "corrects"
    first, last = utterance.span or (utterance.t, utterance.t)
    start, end = _column(dialogue, first), _column(dialogue, last) + 1
    note = " · ".join(notes)
    end = _wide(f"{note} {said}{unsaid}", width, start, end)
    return Item(start, end, said, css, _told(dialogue, index), note, unsaid)


def _told(dialogue: Dialogue, index: int) -> str:
    u = dialogue.utterances[index]
    parts = [f"utterance {index} ({u.kind}): right from {u.t:g} s on"]
    parts.append(f"said from {u.span[0]:g} to {u.span[1]:g} s" if u.span else "never said")
    parts.append(f"evidence {u.evidence[0]:g} to {u.evidence[1]:g} s")
    if u.answers is not None:
        parts.append(f"answers turn {u.answers}")
    if u.corrects is not None:
        parts.append(f"corrects utterance {u.corrects}")
    if u.preempted:
        parts.append("cut off")
    if u.tolerance:
        parts.append(f"in time up to {u.t + u.tolerance:g} s")
    return ", ".join(parts)


def _evidence_item(dialogue: Dialogue, index: int) -> Item:
    utterance: Utterance = dialogue.utterances[index]
    begin, end = utterance.evidence
    start = _column(dialogue, begin)
    title = f"utterance {index} rests on {begin:g} to {end:g} s"
    return Item(start, max(start + 1, _column(dialogue, end) + 1), f"#{index}", "evidence", title)


def _truth(dialogue: Dialogue, timeline: Timeline, width: int) -> list[Track]:
    """What the timeline says of the stretch that is shown: events and changes, then a track for each subject of states."""
    last = dialogue.frame_times[-1] + 1.0 / dialogue.fps
    shown = [s for s in timeline.segments if s.begin < last and (s.end is None or s.end > dialogue.frame_times[0] - _NEAR)]
    events = [s for s in shown if s.level not in ("state", "video")][:EVENTS]
    tracks = [Track("events", _lanes([_segment_item(dialogue, s, width) for s in events]))]
    for subject in list(dict.fromkeys(s.subject for s in shown if s.level == "state"))[:SUBJECTS]:
        items = [_segment_item(dialogue, s, width, f"{s.subject}: {s.value}") for s in shown if s.subject == subject]
        tracks.append(Track(subject, [items]))
    return tracks


def _segment_item(dialogue: Dialogue, segment: Segment, width: int, title: str = "") -> Item:
    frames = len(dialogue.frame_times)
    until = dialogue.frame_times[-1] + 1 if segment.end is None else segment.end
    start = _column(dialogue, segment.begin)
    # A segment ends where the next one begins: the frame at its end no longer belongs to it.
    end = max(start + 1, min(frames, bisect.bisect_left(dialogue.frame_times, until - _NEAR)))
    stretch = f"{segment.begin:g} to {until:g} s" if segment.end is not None else f"from {segment.begin:g} s on"
    what = f"{title or segment.text}, {stretch}" + (f", change: {segment.change}" if segment.change else "")
    if segment.level == "state":
        return Item(start, end, segment.value, "state", what)
    css = "change" if segment.change else "event"
    return Item(start, _wide(segment.text, width, start, end), segment.text, css, what, segment.change)


def _lanes(items: Sequence[Item]) -> list[list[Item]]:
    """Boxes in as few lines as possible without covering each other, in order of their columns."""
    lanes: list[list[Item]] = []
    for item in sorted(items, key=lambda one: one.start):
        lane = next((lane for lane in lanes if lane[-1].end <= item.start), None)
        if lane is None:
            lanes.append([item])
        else:
            lane.append(item)
    return lanes


def _lines(dialogue: Dialogue) -> list[str]:
    told = [(turn.t, 0, f"{turn.t:g} s, user: {turn.text}") for turn in dialogue.users]
    for index, u in enumerate(dialogue.utterances):
        told.append((u.span[0] if u.span else u.t, 1, f"assistant: {u.text} ({_told(dialogue, index)})"))
    return [text for _, _, text in sorted(told)] or ["Nobody says anything."]
