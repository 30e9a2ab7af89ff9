"""A question about what can be seen already: answered at the first frame after it."""

from __future__ import annotations

from data_pipeline.generator.behaviours.ground import Ground, draw_subject
from data_pipeline.generator.plan import Plan, Question


def plan(ground: Ground) -> Plan | None:
    """One question on a state, on what goes on, or an annotated one; None where there is nothing to ask for."""
    question = draw(ground, "direct")
    return None if question is None else ground.plan("direct", question)


def draw(ground: Ground, behaviour: str, first: int = 1, last: int | None = None) -> Question | None:
    """A question that frame `first`..`last` can answer at once."""
    last = ground.last if last is None else last
    makers = [states, annotated, going_on]
    if ground.annotated():
        makers = [annotated, states, going_on]
    for make in makers:
        question = make(ground, behaviour, first, last)
        if question is not None:
            return question
    return None


def states(ground: Ground, behaviour: str, first: int, last: int) -> Question | None:
    """A question on a state that holds at its frame."""
    shown = {
        subject: frames
        for subject in ground.subjects
        if (frames := [f for b, e, _ in ground.stretches(subject) for f in range(max(b, first), min(e, last + 1))])
    }
    if not shown:
        return None
    subject = draw_subject(ground, list(shown))
    return ground.question(ground.rng.choice(shown[subject]), "ask", behaviour, subject)


def annotated(ground: Ground, behaviour: str, first: int, last: int) -> Question | None:
    """An annotated question behind its evidence."""
    options = [(max(frame, first), q) for frame, q in ground.annotated() if frame <= last]
    if not options:
        return None
    frame, chosen = ground.rng.choice(options)
    frame = ground.rng.randint(frame, min(last, frame + 2))
    return ground.question(frame, "given", behaviour, text=chosen.text)


def going_on(ground: Ground, behaviour: str, first: int, last: int) -> Question | None:
    """A question on what goes on."""
    frames = [
        frame
        for begin, segment in ground.events
        if segment.end is None or segment.end > segment.begin
        for frame in range(
            max(begin, first), min(last + 1, ground.last + 1 if segment.end is None else ground.frame_of(segment.end))
        )
    ]
    return ground.question(ground.rng.choice(frames), "current", behaviour) if frames else None
