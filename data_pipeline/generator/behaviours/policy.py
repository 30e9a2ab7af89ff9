"""The answer policy by rules: what to say at one frame, from what is known by then and from the latest request alone.

Every task is a pure function of the truncated timeline and the dialogue so far. A thing belongs to the first frame at which it is
known: frame k owns what became known after frame k - 1.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from data_pipeline.generator.behaviours.wording import Wording
from data_pipeline.generator.plan import Action, Known, Question
from data_pipeline.realtime.dialogue import Utterance
from data_pipeline.timeline.timeline import Segment

SPOKEN_SALIENCE = 0.5
"""Events below are neither told nor waited for."""
TOLD_LEVELS = ("event", "action")


@dataclass(frozen=True)
class Turn:
    """The latest request, and what has been said about it so far."""

    question: Question
    index: int
    """Into `Known.asked`."""
    first: int
    """Index of the first frame after it: the earliest that can answer."""
    replies: tuple[Utterance, ...]
    positions: tuple[int, ...]
    """Of `replies` in `Known.said`."""


Task = Callable[[Known, Turn, Wording], Action | None]


def act(known: Known, wording: Wording) -> Action | None:
    """What the latest request asks to say at this frame; None is silence, and so is everything before the first request."""
    if not known.asked:
        return None
    index = len(known.asked) - 1
    question = known.asked[index]
    task = TASKS.get(question.task)
    if task is None:
        return None
    positions = tuple(i for i, said in enumerate(known.said) if said.answers == index)
    first = 0 if not question.text else bisect_right(known.frames, question.t)
    return task(known, Turn(question, index, first, tuple(known.said[i] for i in positions), positions), wording)


def matches(target: str, text: str) -> bool:
    """Whether the words of `target` occur in `text` in their order: `ball appears` in `red ball appears`."""
    if target == text:
        return True
    words = iter(text.split())
    return all(word in words for word in target.split())


def told(segment: Segment) -> bool:
    """Whether a segment is something that happens and is worth a word."""
    return segment.level in TOLD_LEVELS and segment.salience >= SPOKEN_SALIENCE


def _fresh(known: Known, after: float | None = None) -> list[Segment]:
    """What happened at this frame, or since second `after`."""
    after = known.previous if after is None else after
    return [s for s in known.timeline.segments if after < s.known_from <= known.t and told(s)]


def _shown(segments: list[Segment], t: float) -> tuple[float, float]:
    """The stretch of video that shows all of the segments; none of it lies after `t`."""
    return min(s.begin for s in segments), min(t, max(s.known_from for s in segments))


def _lasting(known: Known) -> Segment | None:
    """Of the segments that are known and have not ended, the one that became known last."""
    lasting = [s for s in known.timeline.segments if told(s) and (s.end is None or s.end > known.t)]
    return max(reversed(lasting), key=lambda s: s.known_from, default=None)


def _held(known: Known, state: Segment) -> tuple[float, float]:
    """When a state came about: a cut may have split it, but what holds on is no news."""
    for earlier in reversed(known.timeline.states(state.subject)):
        if earlier.end == state.begin and earlier.value == state.value:
            state = earlier
    return _shown([state], known.t)


def _answer(text: str, evidence: tuple[float, float], turn: Turn, kind: str = "answer", corrects: int | None = None) -> Action:
    return Action(
        text=text,
        evidence=evidence,
        answers=turn.index if turn.question.text else None,
        corrects=corrects,
        kind=kind,
        tolerance=turn.question.tolerance,
        replaces_running=corrects is not None,
    )


def narrate(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """All that happens, when it happens. A request right after the first frame covers that frame as well."""
    early = turn.first == 1 and known.frame == 1
    happened = _fresh(known, float("-inf") if early else None)
    if not happened:
        return None
    text = wording.events([s.text for s in happened])
    return _answer(text, _shown(happened, known.t), turn, "narration")


def ask(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """A state, once: at once where it is known, otherwise as soon as it is."""
    if turn.replies:
        return None
    state = known.timeline.state_at(turn.question.subject, known.t)
    if state is None:
        return None
    return _answer(wording.state(state.value), _held(known, state), turn)


def keep(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """A state, or what goes on where there is no subject, and a correction whenever it is no longer what was said."""
    if not turn.replies:
        return ask(known, turn, wording) if turn.question.subject else current(known, turn, wording)
    if turn.question.subject:
        state = known.timeline.state_at(turn.question.subject, known.t)
        value = "" if state is None else state.value
    else:
        state = _lasting(known)
        value = "" if state is None else state.text
    if state is None or turn.replies[-1].text in (wording.state(value), wording.now(value)):
        return None
    evidence = _held(known, state) if turn.question.subject else _shown([state], known.t)
    return _answer(wording.now(value), evidence, turn, "correction", turn.positions[-1])


def count(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """The number of things, and the number again whenever it is another one."""
    state = known.timeline.state_at(turn.question.subject or "count", known.t)
    if state is None or (turn.replies and turn.replies[-1].text == wording.state(state.value)):
        return None
    return _answer(wording.state(state.value), _held(known, state), turn, "count")


def count_events(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """How often something has happened since the request, each time that it does."""
    if not _matching(known, turn, known.previous):
        return None
    since = known.frames[turn.first - 1] if turn.first else float("-inf")
    counted = _matching(known, turn, since)
    return _answer(wording.number(len(counted)), _shown(counted, known.t), turn, "count")


def alert(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """One line for every time that it happens."""
    happened = _matching(known, turn, known.previous)
    if not happened:
        return None
    return _answer(wording.events([s.text for s in happened]), _shown(happened, known.t), turn, "alert")


def following(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """The next thing that happens, once."""
    happened = _fresh(known)
    if turn.replies or not happened:
        return None
    return _answer(wording.events([s.text for s in happened]), _shown(happened, known.t), turn)


def yet(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """Whether something has happened: `not yet` at first where it has not, and the truth once it has."""
    if turn.replies and turn.replies[-1].kind != "not_yet":
        return None
    happened = _matching(known, turn, float("-inf"))
    if happened:
        latest = [s for s in happened if s.known_from == max(s.known_from for s in happened)]
        return _answer(wording.happened([s.text for s in latest]), _shown(latest, known.t), turn)
    if turn.replies:
        return None
    return _answer(wording.not_yet(), (known.t, known.t), turn, "not_yet")


def last(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """What happened last, as far as it is known."""
    if turn.replies:
        return None
    happened = _fresh(known, float("-inf"))
    if not happened:
        return _answer(wording.nothing(), (known.t, known.t), turn)
    chosen = [s for s in happened if s.known_from == max(s.known_from for s in happened)]
    return _answer(wording.events([s.text for s in chosen]), _shown(chosen, known.t), turn)


def before(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """What held before the present state: the latest value that is another one."""
    if turn.replies:
        return None
    states = [s for s in known.timeline.states(turn.question.subject) if s.begin <= known.t]
    present = known.timeline.state_at(turn.question.subject, known.t)
    for state in reversed(states):
        if state is not present and (present is None or state.value != present.value):
            # What lies before something is known once it is over.
            over = state.known_from if state.end is None else max(state.end, state.known_from)
            return _answer(wording.state(state.value), (over, over), turn)
    return _answer(wording.nothing(), (known.t, known.t), turn)


def current(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """What is going on, once, as soon as something is."""
    lasting = _lasting(known)
    if turn.replies or lasting is None:
        return None
    return _answer(wording.state(lasting.text), _shown([lasting], known.t), turn)


def given(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """The annotated answer of an annotated question, as soon as its evidence has been seen."""
    if turn.replies:
        return None
    for question in known.timeline.questions:
        if question.text == turn.question.text and question.evidence is not None:
            return _answer(wording.given(question.answer), question.evidence, turn)
    return None


def quiet(known: Known, turn: Turn, wording: Wording) -> Action | None:
    """Nothing, until the user says something else."""
    return None


def _matching(known: Known, turn: Turn, after: float) -> list[Segment]:
    return [s for s in _fresh(known, after) if matches(turn.question.target, s.text)]


TASKS: dict[str, Task] = {
    "narrate": narrate,
    "ask": ask,
    "keep": keep,
    "count": count,
    "count_events": count_events,
    "alert": alert,
    "next": following,
    "yet": yet,
    "last": last,
    "before": before,
    "current": current,
    "given": given,
    "quiet": quiet,
    "retract": quiet,
}
"""What a request can ask for."""
