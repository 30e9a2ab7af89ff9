"""Moments at which a video becomes different to look at, found by rules in its timeline."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator

from data_pipeline.timeline.normalise import same_text
from data_pipeline.timeline.timeline import Change, Segment, Timeline

SALIENCE = {"scene": 1.0, "appear": 0.9, "leave": 0.9, "count": 0.8, "text": 0.8, "state": 0.7, "action": 0.7}
"""How much a kind of change deserves to be spoken of, before the segment's own salience is taken into account."""
_NOTHING = {"", "nothing", "none", "nobody", "no one", "no objects", "empty", "absent", "gone", "没有", "无", "没有东西"}
"""Values of a state that say that nothing is there."""
_APPEARS = re.compile(r"\b(appears?|enters?|arrives?|comes? (?:in|into|out of|from)|shows? up)\b|出现|进来|进入", re.IGNORECASE)
_LEAVES = re.compile(
    r"\b(leaves?|disappears?|vanish(?:es)?|exits?|goes (?:out|away)|walks? (?:out|off|away))\b|离开|消失", re.IGNORECASE
)
_PLACE_OF_CLAUSE = re.compile(r"\b(?:and|then|while|before|after|as)\b|[,;，；]")


def detect_changes(timeline: Timeline) -> tuple[Change, ...]:
    """Observable changes in order of time.

    - A state of a subject that follows another value, or nothing at all after the video's beginning: `count` for the subject
      `count`, `text` for `sign`, `action` for `action:...`, `appear` or `leave` where the value says that nothing is or was
      there, else `state`.
    - The beginning of an event or action: what the segment names as its change, else, where it lies behind the video's
      beginning, `appear` or `leave` by its verb, else `action`.
    - The beginning and, where another text follows or it ends within the video, the end of a text in the picture.
    - A segment of level `video` or `speech` only where it names its change: what is said is not seen, and a summary happens
      nowhere.

    `t` is the first second at which the new can be seen and its text may be told: the beginning, or later where the text is not
    evident yet. What is evident beyond the duration only is no change, and the same change is given once. Ids depend on the
    content alone, so that other changes may come and go.

    The timeline must be sorted with states that do not overlap, as `normalise` gives it.
    """
    found = [c for s in timeline.subjects() for c in _of_states(timeline, s)]
    found += [c for s in timeline.segments if (c := _of_segment(s, timeline)) is not None]
    found += _of_texts(timeline)
    unique: dict[tuple[float, str, str], Change] = {}
    for change in sorted(
        found, key=lambda c: (c.t, c.kind, c.subject == "", c.subject, same_text(c.after), c.before, -c.salience)
    ):
        if change.t <= timeline.duration:
            key = (change.t, change.kind, f"{change.subject}\n{same_text(change.after or change.before)}")
            unique.setdefault(key, change)
    return tuple(unique.values())


def change_id(change: Change) -> str:
    """Digest of when, what kind and what: the same however many other changes there are."""
    content = json.dumps([round(change.t, 3), change.kind, change.subject, change.before, change.after], ensure_ascii=False)
    return "c" + hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _change(t: float, kind: str, before: str, after: str, subject: str, salience: float) -> Change:
    made = Change(
        id="", t=t, kind=kind, before=before, after=after, subject=subject, salience=round(SALIENCE[kind] * salience, 6)
    )
    return Change(id=change_id(made), t=t, kind=kind, before=before, after=after, subject=subject, salience=made.salience)


def _of_states(timeline: Timeline, subject: str) -> Iterator[Change]:
    """Transitions of one subject; the state that the video begins with is none, and neither is one that is known too late."""
    states = timeline.states(subject)
    for number, state in enumerate(states):
        t = max(state.begin, state.known_from)
        if state.end is not None and t >= state.end:
            continue
        # What was known by then is what came before: a segment that becomes known later must not tell.
        before = next((s for s in reversed(states[:number]) if s.known_from <= t), None)
        if before is None and state.begin <= 0 and state.change == "":
            continue
        value = "" if before is None else before.value
        if before is None or same_text(value) != same_text(state.value):
            kind = state.change or _kind_of_state(subject, value, state.value, before is None)
            yield _change(t, kind, value, state.value, subject, state.salience)


def _kind_of_state(subject: str, before: str, after: str, first: bool) -> str:
    if subject == "count":
        return "count"
    if subject in ("sign", "text"):
        return "text"
    if subject.startswith("action"):
        return "action"
    if not first and same_text(before) in _NOTHING:
        return "appear"
    if same_text(after) in _NOTHING:
        return "leave"
    return "state"


def _of_segment(segment: Segment, timeline: Timeline) -> Change | None:
    """The onset of an event or action, or of whatever names its change."""
    if segment.level in ("state", "text"):
        return None
    if not segment.change and (segment.level not in ("event", "action") or segment.begin <= 0):
        return None
    t = max(segment.begin, segment.known_from)
    if t > timeline.duration:
        return None
    kind = segment.change or _kind_of_words(segment.text)
    return _change(t, kind, "", segment.text, segment.subject, segment.salience)


def _kind_of_words(text: str) -> str:
    """By the verb of the first clause: a later one tells what came after the beginning."""
    clause = _PLACE_OF_CLAUSE.split(text, maxsplit=1)[0]
    if _LEAVES.search(clause):
        return "leave"
    return "appear" if _APPEARS.search(clause) else "action"


def _of_texts(timeline: Timeline) -> Iterator[Change]:
    """Texts in the picture that come, or go without another one in their place."""
    texts = [s for s in timeline.segments if s.level == "text"]
    for number, shown in enumerate(texts):
        t, end = max(shown.begin, shown.known_from), shown.end
        gone = [s for s in texts[:number] if s.end is not None and s.end == shown.begin and s.known_from <= t]
        before = gone[-1].text if gone else ""
        if same_text(before) != same_text(shown.text) and (t > 0 or shown.change):
            yield _change(t, "text", before, shown.text, shown.subject, shown.salience)
        if end is None or not t < end < timeline.duration:
            continue
        if not any(s.begin <= end and (s.end is None or end < s.end) and s.known_from <= end for s in texts):
            yield _change(end, "text", shown.text, "", shown.subject, shown.salience)
