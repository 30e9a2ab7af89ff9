"""A question whose answer is not evident yet: silence until the evidence is there, then the answer."""

from __future__ import annotations

from data_pipeline.generator.behaviours.ground import Ground, draw_subject
from data_pipeline.generator.plan import Plan, Question


def plan(ground: Ground) -> Plan | None:
    """One question ahead of its evidence; None where everything is evident from the start."""
    question = draw(ground, "delayed")
    return None if question is None else ground.plan("delayed", question[0])


def draw(ground: Ground, behaviour: str) -> tuple[Question, int] | None:
    """A question that must wait for at least one frame, and the frame that answers it."""
    makers = [states, following]
    ground.rng.shuffle(makers)
    for make in ([annotated] if ground.annotated() else []) + makers:
        found = make(ground, behaviour)
        if found is not None:
            return found
    return None


def states(ground: Ground, behaviour: str) -> tuple[Question, int] | None:
    """A question on a state of which nothing is known yet, or which is interrupted."""
    gaps: dict[str, list[tuple[int, int]]] = {}
    for subject in ground.subjects:
        end = 0
        for begin, until, _ in ground.stretches(subject):
            # The request comes right before one of the frames that show nothing.
            gaps.setdefault(subject, []).extend((frame, begin) for frame in range(max(1, end), begin))
            end = until
    gaps = {subject: frames for subject, frames in gaps.items() if frames}
    if not gaps:
        return None
    subject = draw_subject(ground, list(gaps))
    frame, answer = ground.rng.choice(gaps[subject])
    return ground.question(frame, "ask", behaviour, subject, expected="later"), answer


def following(ground: Ground, behaviour: str) -> tuple[Question, int] | None:
    """What happens next, asked between two events."""
    frames = sorted({frame for frame, _ in ground.events})
    waits = [(frame, answer) for before, answer in zip([0, *frames], frames, strict=False) for frame in range(before + 1, answer)]
    if not waits:
        return None
    frame, answer = ground.rng.choice(waits)
    return ground.question(frame, "next", behaviour, expected="later"), answer


def annotated(ground: Ground, behaviour: str) -> tuple[Question, int] | None:
    """An annotated question ahead of its evidence."""
    options = [(frame, q) for frame, q in ground.annotated() if frame >= 2]
    if not options:
        return None
    answer, chosen = ground.rng.choice(options)
    frame = ground.rng.randint(max(1, answer // 2), answer - 1)
    return ground.question(frame, "given", behaviour, text=chosen.text, expected="later"), answer
