"""Timeline normaliser: clean segments from rough notes, with no time that the notes do not have."""

from __future__ import annotations

from collections.abc import Sequence

from data_pipeline.generator.author import Unfit
from data_pipeline.generator.models.fields import Fields
from data_pipeline.generator.models.schemas import SEGMENT_LEVELS
from data_pipeline.generator.models.views import LANGUAGES, segment_line
from data_pipeline.timeline.timeline import CHANGES, Segment, Timeline, check_timeline
from model.errors import InputError

STAGE = "normalise"
NOTES_PER_CALL = 60
"""So a timeline of n segments takes ceil(n / 60) calls."""
ROUNDING = 0.051
"""Seconds by which a time of an answer may differ from that of the note."""


def notes_text(timeline: Timeline, notes: Sequence[Segment]) -> str:
    """What the normaliser reads: numbered notes."""
    lines = [f"{i}. {segment_line(s, 'open')}" for i, s in enumerate(notes)]
    return f"Language: {LANGUAGES.get(timeline.language, timeline.language)}\n\nNotes:\n" + "\n".join(lines)


def read_segments(answer: Fields, notes: Sequence[Segment], duration: float) -> list[Segment]:
    """The segments of an answer. None is known earlier than all the notes that it rests on.

    Raises:
        Unfit: a segment is malformed, names a note or a time that is not there.
    """
    return [_segment(fields, notes, duration) for fields in answer.objects("segments", 8 * len(notes))]


def rebuilt(timeline: Timeline, segments: Sequence[Segment]) -> Timeline:
    """The timeline with other segments, checked.

    Raises:
        Unfit: states of one subject overlap, or a field breaks a rule of timelines.
    """
    if timeline.segments and not segments:
        raise Unfit(STAGE, "segments is empty although there were notes")
    built = Timeline(
        **{
            **{name: getattr(timeline, name) for name in timeline.__dataclass_fields__},
            "segments": tuple(sorted(segments, key=lambda s: s.begin)),
        }
    )
    try:
        check_timeline(built)
    except InputError as error:
        raise Unfit(STAGE, str(error)) from error
    return built


def _segment(fields: Fields, notes: Sequence[Segment], duration: float) -> Segment:
    cited = fields.items("notes", len(notes))
    if not cited or not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < len(notes) for n in cited):
        raise fields.unfit("notes", f"name at least one of the {len(notes)} notes, counted from 0")
    sources = [notes[n] for n in cited]
    begin = _own_time(fields, "begin", sources, duration)
    end = _own_time(fields, "end", sources, duration)
    level = fields.choice("level", SEGMENT_LEVELS)
    subject, value = fields.text("subject", empty=True), fields.text("value", empty=True)
    if level == "state" and not (subject and value):
        raise fields.unfit("subject", "a state needs a subject and a value")
    if end < begin:
        raise fields.unfit("end", f"the segment begins at {begin:g} s")
    # Whoever hears the text may hear all of what the notes say; that is known once the last of them is.
    known = max(s.known_from for s in sources)
    return Segment(
        begin=begin,
        end=end,
        text=fields.text("text"),
        level=level,
        evident=max(begin, min(known, duration)),
        subject=subject if level == "state" else "",
        value=value if level == "state" else "",
        entities=tuple(e for e in fields.texts("entities", 50) if e),
        change=fields.choice("change", ("", *CHANGES)),
        salience=max(s.salience for s in sources),
        source="+".join(dict.fromkeys(s.source for s in sources if s.source)),
    )


def _own_time(fields: Fields, key: str, sources: Sequence[Segment], duration: float) -> float:
    """The time of a note that an answer repeats."""
    value = fields.number(key, 0, duration + ROUNDING)
    times = [s.begin for s in sources] + [duration if s.end is None else s.end for s in sources]
    nearest = min(times, key=lambda t: abs(t - value))
    if abs(nearest - value) > ROUNDING:
        raise fields.unfit(key, f"none of its notes begins or ends there; the nearest time is {nearest:g} s")
    return nearest
