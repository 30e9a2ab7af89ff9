"""Questions about a whole story, with answers, choices and the seconds that show them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence

from data_pipeline.timeline.timeline import GivenQuestion, Segment
from data_pipeline.world.palette import COLOURS, COLUMNS, ROWS
from data_pipeline.world.story.record import Record
from data_pipeline.world.story.words import SIGN_WORDS, count_words, times_words

CELLS = tuple(f"{row} {column}" for row in ROWS for column in COLUMNS)
ACTIONS = ("spins", "blinks", "grows", "shrinks", "circles", "carries")


def questions(record: Record, told: Sequence[Segment]) -> tuple[GivenQuestion, ...]:
    """All that this story lends itself to; kinds: count, colour, place, before, order, often, action, sign, relation."""
    return (*_counts(record), *_states(record, told), *_events(record, told), *_relations(record), *_hidden(record, told))


def _ask(kind: str, text: str, answer: str, begin: float, end: float, choices: Sequence[str] = ()) -> GivenQuestion:
    return GivenQuestion(text=text, answer=answer, evidence=(begin, end), kind=kind, choices=tuple(choices))


def _counts(record: Record) -> list[GivenQuestion]:
    seen = record.visible.sum(1)
    last = record.times[-1]
    choices = [count_words(n) for n in range(7)]
    asked = [_ask("count", "How many objects can be seen at the end?", count_words(int(seen[-1])), last, last, choices)]
    text = "What is the largest number of objects seen at once?"
    return [*asked, _ask("count", text, count_words(int(seen.max())), 0.0, last, choices)]


def _states(record: Record, told: Sequence[Segment]) -> list[GivenQuestion]:
    found = []
    last = record.times[-1]
    doubles = _seen_twice_at_once(record)
    for subject in dict.fromkeys(s.subject for s in told if s.level == "state"):
        runs = [s for s in told if s.subject == subject]
        prefix, _, kind = subject.partition(":")
        if kind in doubles:
            continue
        first, final = runs[0], runs[-1]
        if prefix == "colour":
            found.append(_ask("colour", f"What colour is the {kind} when first seen?", first.value, *_span(first), COLOURS))
            turns = {(s.text, s.evident) for s in told if s.level == "event"}
            changed = [(a, b) for a, b in itertools.pairwise(runs) if (f"{kind} turns {b.value}", b.begin) in turns]
            if len(changed) == 1:
                a, b = changed[0]
                text = f"What colour was the {kind} before it turned {b.value}?"
                found.append(_ask("before", text, a.value, a.begin, b.begin, COLOURS))
        elif prefix == "place":
            found.append(_ask("place", f"Where is the {kind} when it is first seen?", first.value, *_span(first), CELLS))
            found.append(_ask("place", f"Where is the {kind} when it is last seen?", final.value, final.begin, last, CELLS))
        elif prefix == "sign":
            choices = _sign_choices(record, first.value)
            found.append(_ask("sign", "What does the sign say at first?", first.value, *_span(first), choices))
            choices = _sign_choices(record, final.value)
            found.append(_ask("sign", "What does the sign say at the end?", final.value, final.begin, last, choices))
            # what a counter or a clock said before can be told from what it says now
            if first.value in SIGN_WORDS and len(runs) > 1 and [run.value for run in runs].count(final.value) == 1:
                text = f"What did the sign say before {final.value}?"
                found.append(_ask("before", text, runs[-2].value, runs[-2].begin, final.begin, choices))
        elif prefix == "entered":
            choices = list(dict.fromkeys([*(count_words(n) for n in range(7)), final.value]))
            found.append(_ask("often", "How many different objects entered the box?", final.value, 0.0, last, choices))
    return found


def _seen_twice_at_once(record: Record) -> set[str]:
    """Kinds of which a frame shows two objects, so that nobody knows which one a question means."""
    found = set()
    for kind in set(record.kinds):
        who = [n for n, k in enumerate(record.kinds) if k == kind]
        if (record.visible[:, who].sum(1) > 1).any():
            found.add(kind)
    return found


def _sign_choices(record: Record, answer: str) -> list[str]:
    """All words; of a counter or a clock seven values in a row, in which the answer stands anywhere."""
    if answer in SIGN_WORDS:
        return sorted(SIGN_WORDS)
    place = zlib.crc32(f"{answer} {record.kinds} {record.sign}".encode()) % 7
    if ":" not in answer:
        first = max(0, int(answer) - place)
        return [str(first + i) for i in range(7)]
    hours, minutes = (int(v) for v in answer.split(":"))
    moments = [(hours * 60 + minutes + 3 * (i - place)) % 1440 for i in range(7)]
    return [f"{m // 60}:{m % 60:02d}" for m in moments]


def _span(segment: Segment) -> tuple[float, float]:
    """Seconds of the first frame of a state: it is enough to see one."""
    return segment.begin, segment.begin


def _events(record: Record, told: Sequence[Segment]) -> list[GivenQuestion]:
    found = []
    events = [s for s in told if s.level in ("event", "action") and s.entities and s.salience >= 0.5]
    texts = [s.text for s in events]
    once = [s for s in events if texts.count(s.text) == 1]
    for a, b in itertools.pairwise(once):
        if a.known_from < b.known_from and b.begin > a.begin:
            one, other = sorted((a.text, b.text))
            found.append(_ask("order", f"What happens first: {one}, or {other}?", a.text, a.begin, b.known_from, (one, other)))
            break
    hits = sum(" hits " in s.text for s in events)
    if hits:
        choices = [times_words(n) for n in range(max(7, hits + 1))]
        found.append(_ask("often", "How often does one object hit another?", times_words(hits), 0.0, record.times[-1], choices))
    for kind in dict.fromkeys(record.kinds):
        if record.kinds.count(kind) > 1:
            continue
        own = [s for s in events if s.entities[0].split("#")[0] == kind]
        bounces = [s for s in own if s.text.endswith(" bounces")]
        if bounces:
            text = f"How often does the {kind} bounce?"
            choices = [times_words(n) for n in range(max(7, len(bounces) + 1))]
            found.append(_ask("often", text, times_words(len(bounces)), 0.0, record.times[-1], choices))
        verbs = {verb: s for s in own if s.level == "action" for verb in ACTIONS if f" {verb}" in s.text}
        if len(verbs) == 1 and all(s.level == "action" or s.change in ("appear", "leave") or " turns " in s.text for s in own):
            verb, s = next(iter(verbs.items()))
            found.append(_ask("action", f"What does the {kind} do?", verb, s.begin, s.known_from, ACTIONS))
    return found


def _relations(record: Record) -> list[GivenQuestion]:
    """Two objects of different kinds in the last frame that shows both, clearly beside or in front of each other."""
    found: list[GivenQuestion] = []
    last = len(record.times) - 1
    shown = [n for n in range(len(record.kinds)) if record.visible[last, n]]
    unique = [n for n in shown if sum(record.kinds[m] == record.kinds[n] for m in shown) == 1]
    for i, a in enumerate(unique):
        for b in unique[i + 1 :]:
            gap = float(record.x[last, a] - record.x[last, b])
            if abs(gap) > record.size / 6 and not found:
                text = f"At the end, is the {record.kinds[a]} left or right of the {record.kinds[b]}?"
                t = record.times[last]
                found.append(_ask("relation", text, "left" if gap < 0 else "right", t, t, ("left", "right")))
    return found


def _hidden(record: Record, told: Sequence[Segment]) -> list[GivenQuestion]:
    first = next((s for s in told if s.text.endswith(" goes behind the wall")), None)
    if first is None:
        return []
    answer = first.text.removesuffix(" goes behind the wall")
    names = sorted({record.name(0, n) for n in range(len(record.kinds))} | {answer})
    # the frame that proves it shows nobody; the last one before shows who it was
    who = int(first.entities[0].split("#")[1])
    seen = max(t for t, visible in zip(record.times, record.visible[:, who], strict=True) if visible and t < first.known_from)
    return [_ask("relation", "What goes behind the wall first?", answer, min(seen, first.begin), first.known_from, names)]
