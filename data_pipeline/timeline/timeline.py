"""Segments of a video in order of time, and the same cut off at a moment, as somebody knows it who watches live."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field

from model.errors import InputError

LEVELS = ("video", "event", "action", "speech", "state", "text")
"""video: about all of it. event: something that happens. action: something that lasts. speech: what is said in it. state: what
holds as long as it lasts. text: what is to be read in the picture."""
CHANGES = ("appear", "leave", "action", "count", "text", "scene", "state")
"""Kinds of change that a segment may bring about."""


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Something that is true of a stretch of the video."""

    begin: float
    """Seconds from the start of the video."""
    end: float | None
    """Seconds; None where it is not known yet, since the video goes on."""
    text: str
    """A sentence, or a phrase that can stand as an answer."""
    level: str = "event"
    """One of `LEVELS`."""
    evident: float | None = None
    """Second from which on somebody who watches can know all of the text; None means `begin` for events, states and texts, and
    `end` for the others, whose text may tell what happens last."""
    subject: str = ""
    """What a state is about, such as `count` or `colour:ball`; segments of one subject follow each other and do not overlap."""
    value: str = ""
    """The state alone, such as `two objects`."""
    entities: tuple[str, ...] = ()
    """Who or what takes part."""
    change: str = ""
    """One of `CHANGES`, where the beginning is one; empty where the segment merely goes on."""
    salience: float = 1.0
    """0..1: how much it deserves to be spoken of."""
    source: str = ""
    """Which annotation says so."""

    @property
    def known_from(self) -> float:
        """Second from which on its text may be used; infinite for what ends later than anybody knows."""
        if self.evident is not None:
            return self.evident
        if self.level in ("event", "state", "text"):
            return self.begin
        return math.inf if self.end is None else self.end


@dataclass(frozen=True, kw_only=True)
class GivenQuestion:
    """A question that somebody has annotated, with its answer and where in the video the evidence lies."""

    text: str
    answer: str
    evidence: tuple[float, float] | None = None
    """Seconds; None where the whole video is needed."""
    kind: str = "free"
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """All that is known of one video."""

    id: str
    duration: float
    """Seconds."""
    segments: tuple[Segment, ...] = ()
    """In order of `begin`."""
    questions: tuple[GivenQuestion, ...] = ()
    video: str = ""
    """Path of the file; empty where the video is made from a seed."""
    language: str = "en"
    """en | zh: what the texts are written in."""
    source: str = ""
    """Where the video comes from."""
    license: str = ""
    split_key: str = ""
    """Videos with the same key go to the same split; empty means the id."""
    meta: dict[str, object] = field(default_factory=dict)
    """Anything a source wants to keep, such as a seed."""

    def until(self, t: float) -> Timeline:
        """What can be known at second `t`: segments whose text is known by then, with ends that lie ahead taken away.

        A segment that has begun but whose text is not known yet is left out, and so are questions whose evidence ends later.
        `meta` is taken away: whatever a source keeps there may speak of all of the video.
        """
        seen = tuple(
            dataclasses.replace(s, end=s.end if s.end is not None and s.end <= t else None, evident=s.known_from)
            for s in self.segments
            if s.begin <= t and s.known_from <= t
        )
        asked = tuple(q for q in self.questions if q.evidence is not None and q.evidence[1] <= t)
        return dataclasses.replace(self, duration=min(self.duration, t), segments=seen, questions=asked, meta={})

    def states(self, subject: str) -> tuple[Segment, ...]:
        """Segments of one subject, in order of time."""
        return tuple(s for s in self.segments if s.level == "state" and s.subject == subject)

    def state_at(self, subject: str, t: float) -> Segment | None:
        """The segment of a subject that holds at second `t`."""
        for s in self.states(subject):
            if s.begin <= t and (s.end is None or t < s.end):
                return s
        return None

    def subjects(self) -> tuple[str, ...]:
        """Subjects of all states, in order of their first segment."""
        return tuple(dict.fromkeys(s.subject for s in self.segments if s.level == "state"))


@dataclass(frozen=True, kw_only=True)
class Change:
    """A moment at which the video becomes different to look at."""

    id: str
    t: float
    """Second at which the new state can be seen."""
    kind: str
    """One of `CHANGES`."""
    before: str
    """What held until then; empty where nothing did."""
    after: str
    subject: str = ""
    salience: float = 1.0


def check_timeline(timeline: Timeline, where: str = "") -> None:
    """Check what later stages rely on.

    Raises:
        InputError: naming the timeline, the segment, the field, its value and what is allowed.
    """
    where = where or f"timeline {timeline.id!r}"
    if not timeline.id:
        raise InputError(f"{where} has an empty id; give every video one of its own")
    if not (math.isfinite(timeline.duration) and timeline.duration > 0):
        raise InputError(f"{where} field duration is {timeline.duration}; it must be a positive number of seconds")
    for index, segment in enumerate(timeline.segments):
        _check_segment(segment, f"{where} segments[{index}]", timeline.duration)
        if index and segment.begin < timeline.segments[index - 1].begin:
            raise InputError(
                f"{where} segments[{index}].begin is {segment.begin:g}, before that of the segment in front; sort them"
            )
    for index, question in enumerate(timeline.questions):
        if not question.text.strip() or not question.answer.strip():
            raise InputError(f"{where} questions[{index}] lacks a text or an answer")
        if question.evidence and not 0 <= question.evidence[0] <= question.evidence[1]:
            raise InputError(f"{where} questions[{index}].evidence is {question.evidence}; it must be two rising seconds")
    for subject in timeline.subjects():
        states = timeline.states(subject)
        for before, after in itertools.pairwise(states):
            if before.end is None or before.end > after.begin:
                raise InputError(
                    f"{where} states of subject {subject!r} overlap at {after.begin:g} s; end one before the next begins"
                )


def _check_segment(segment: Segment, where: str, duration: float) -> None:
    if segment.level not in LEVELS:
        raise InputError(f"{where}.level is {segment.level!r}; use one of {', '.join(LEVELS)}")
    if segment.change and segment.change not in CHANGES:
        raise InputError(f"{where}.change is {segment.change!r}; use one of {', '.join(CHANGES)}, or leave it empty")
    if not segment.text.strip():
        raise InputError(f"{where}.text is empty; say what happens")
    if not 0 <= segment.begin <= duration:
        raise InputError(f"{where}.begin is {segment.begin:g}; it must lie within 0..{duration:g} s, the video's duration")
    if segment.end is not None and not segment.begin <= segment.end <= duration + 1e-6:
        raise InputError(f"{where}.end is {segment.end:g}; it must lie within {segment.begin:g}..{duration:g} s")
    if segment.evident is not None and not segment.begin <= segment.evident < math.inf:
        raise InputError(f"{where}.evident is {segment.evident:g}; it must not lie before begin, {segment.begin:g} s")
    if not 0 <= segment.salience <= 1:
        raise InputError(f"{where}.salience is {segment.salience:g}; it must lie within 0..1")
    if segment.level == "state" and not (segment.subject and segment.value):
        raise InputError(f"{where} is a state without a subject or value; name what it is about and what holds")
