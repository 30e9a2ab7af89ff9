"""Rough annotations to clean segments, by rules alone: times stay as given, nothing is made up, no text is rewritten."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterable, Sequence
from itertools import groupby, pairwise

from data_pipeline.timeline.timeline import GivenQuestion, Segment, Timeline, check_timeline

LASTING = ("state", "text")
"""Levels of what can be seen as long as it lasts: a cut ends it, and the same behind the cut is a segment of its own."""
_ORDER = {"video": 0, "event": 1, "action": 2, "state": 3, "text": 4, "speech": 5}


def normalise(timeline: Timeline) -> Timeline:
    """The timeline sorted, within the duration, without doubles and with sound states.

    In this order:

    1. Texts lose surplus spaces; a segment or question without a text, or outside the video, is left out; ends and evidence stop
       at the duration. An end that nobody knows is the beginning of the next state of the subject, or the end of the video.
    2. A segment with a subject and a value is a state.
    3. States and texts are split at scene cuts (segments whose change is `scene`). Events and actions stay whole: their text may
       tell of both sides, so that neither half could be said to be the text's.
    4. Segments of one level, subject and text that overlap (lasting ones: or touch) become one, but never across a cut. The text
       is known as early as that of any of them.
    5. A state ends where the next one of its subject begins.

    A pure function, and normalise(normalise(t)) == normalise(t). What is known at a moment depends on nothing later, up to
    merging what says the same.

    Raises:
        InputError: the timeline has no id or duration.
    """
    check_timeline(dataclasses.replace(timeline, segments=(), questions=()))
    before, segments = None, timeline.segments
    while segments != before:  # a cut may go with a state that another one replaces: what it split is joined again
        before, segments = segments, _clean(segments, timeline.duration)
    return dataclasses.replace(timeline, segments=segments, questions=_questions(timeline.questions, timeline.duration))


def _clean(segments: Sequence[Segment], duration: float) -> tuple[Segment, ...]:
    """All rules about segments once."""
    found = [c for s in segments if (c := _within(_as_state(s), duration)) is not None]
    cuts = sorted({s.begin for s in found if s.change == "scene" and s.begin > 0})
    split = [part for s in _close_states(found, duration) for part in _split(s, cuts)]
    merged = _merge_all(split, cuts)
    states = _without_overlap([s for s in merged if s.level == "state"])
    again = _merge_all(states, cuts)  # trimming can make two of the same value touch
    return tuple(sorted([s for s in merged if s.level != "state"] + again, key=_key))


def same_text(text: str) -> str:
    """What two texts are compared by: without case, surplus spaces and the stop at the end."""
    return " ".join(text.split()).rstrip(".。").rstrip().casefold()


def _key(segment: Segment) -> tuple[object, ...]:
    end = math.inf if segment.end is None else segment.end
    rest = (segment.evident or 0.0, segment.change, segment.salience, segment.entities, segment.source)
    return (segment.begin, _ORDER.get(segment.level, 9), end, segment.subject, segment.value, segment.text, *rest)


def _as_state(segment: Segment) -> Segment:
    """Values in columns of their own are states, whatever the row's level; what its text needed to be known stays needed."""
    if not (segment.subject and segment.value) or segment.level in ("state", "speech"):
        return segment
    open_ended = segment.end is None or segment.end <= segment.begin  # a single moment from which it holds
    late = segment.level != "event" and segment.level != "text"
    evident = segment.evident if segment.evident is not None or not late or open_ended else segment.end
    return dataclasses.replace(segment, level="state", end=None if open_ended else segment.end, evident=evident)


def _within(segment: Segment, duration: float) -> Segment | None:
    """Clipped to 0..duration; None where nothing of it is left."""
    text = " ".join(segment.text.split())
    begin = max(segment.begin, 0.0)
    if not text or begin > duration or (segment.end is not None and segment.end < 0):
        return None
    end = segment.end if segment.end is None else min(max(segment.end, begin), duration)
    if end is None and segment.level != "state":
        end = begin if segment.level == "event" else duration
    evident = None if segment.evident is None else max(segment.evident, begin)
    salience = min(max(segment.salience, 0.0), 1.0)
    return dataclasses.replace(segment, text=text, begin=begin, end=end, evident=evident, salience=salience)


def _close_states(segments: Sequence[Segment], duration: float) -> list[Segment]:
    """States without an end last until the next one of their subject, or the end of the video."""
    begins: dict[str, list[float]] = {}
    for s in segments:
        if s.level == "state":
            bisect.insort(begins.setdefault(s.subject, []), s.begin)
    closed = []
    for s in segments:
        if s.end is None:
            later = begins[s.subject]
            place = bisect.bisect_right(later, s.begin)
            s = dataclasses.replace(s, end=later[place] if place < len(later) else duration)
        closed.append(s)
    return closed


def _split(segment: Segment, cuts: Sequence[float]) -> list[Segment]:
    """A lasting segment in pieces between cuts; only the first one can be a change."""
    if segment.level not in LASTING or segment.end is None:
        return [segment]
    inside = [c for c in cuts if segment.begin < c < segment.end]
    if not inside:
        return [segment]
    edges = [segment.begin, *inside, segment.end]
    known = segment.known_from
    pieces = []
    for number, (begin, end) in enumerate(pairwise(edges)):
        evident = None if segment.evident is None else max(known, begin)
        change = segment.change if number == 0 else ""
        pieces.append(dataclasses.replace(segment, begin=begin, end=end, evident=evident, change=change))
    return pieces


def _merge_all(segments: Iterable[Segment], cuts: Sequence[float]) -> list[Segment]:
    """Every run of overlapping segments that say the same as one."""

    def kind(s: Segment) -> tuple[str, str, str]:
        return s.level, s.subject, same_text(s.value if s.level == "state" else s.text)

    merged = []
    for _, alike in groupby(sorted(segments, key=lambda s: (kind(s), _key(s))), key=kind):
        run: list[Segment] = []
        for s in alike:
            if run and _one(run[-1], s, cuts):
                run[-1] = _merge(run[-1], s)
            else:
                run.append(s)
        merged += run
    return merged


def _one(first: Segment, second: Segment, cuts: Sequence[float]) -> bool:
    """Whether two of the same text, in order, are one."""
    end = first.begin if first.end is None else first.end
    touches = second.begin <= end if first.level in LASTING else second.begin < end or second.begin == first.begin
    return touches and bisect.bisect_right(cuts, first.begin) == bisect.bisect_right(cuts, second.begin)


def _merge(first: Segment, second: Segment) -> Segment:
    """One segment for both; what it says is what the one that is known first says."""
    ends = [s.begin if s.end is None else s.end for s in (first, second)]
    told = first if first.known_from <= second.known_from else second
    known = min(first.known_from, second.known_from)
    evident = None if first.level in ("event", *LASTING) and known == first.begin else known
    if not math.isfinite(known):
        evident = None
    return dataclasses.replace(
        told,
        begin=first.begin,
        end=max(ends),
        evident=evident,
        change=_first_change(first, second),
        salience=max(first.salience, second.salience),
    )


def _first_change(first: Segment, second: Segment) -> str:
    """What the beginning of both is; a cut goes before anything else, since segments were split by it."""
    if second.begin > first.begin:
        return first.change
    return "scene" if "scene" in (first.change, second.change) else first.change or second.change


def _without_overlap(states: Sequence[Segment]) -> list[Segment]:
    """States of a subject one after the other: the next one ends the one before; of two with the same beginning the longer
    stays."""
    kept: list[Segment] = []
    for _, of_one in groupby(sorted(states, key=lambda s: (s.subject, s.begin, -(s.end or 0.0), _key(s))), lambda s: s.subject):
        run: list[Segment] = []
        for s in of_one:
            if run and run[-1].begin == s.begin:
                continue
            if run and (run[-1].end or 0.0) > s.begin:
                run[-1] = dataclasses.replace(run[-1], end=s.begin)
            run.append(s)
        kept += [s for s in run if (s.end or 0.0) > s.begin]
    return kept


def _questions(questions: Sequence[GivenQuestion], duration: float) -> tuple[GivenQuestion, ...]:
    """Without doubles and empty ones, evidence within the video."""
    kept: dict[GivenQuestion, None] = {}
    for q in questions:
        text, answer = " ".join(q.text.split()), " ".join(q.answer.split())
        if not text or not answer:
            continue
        evidence = q.evidence
        if evidence is not None:
            begin, end = max(evidence[0], 0.0), min(evidence[1], duration)
            if begin > end:
                continue
            evidence = (begin, end)
        kept[dataclasses.replace(q, text=text, answer=answer, evidence=evidence)] = None
    return tuple(kept)
