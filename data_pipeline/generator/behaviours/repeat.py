"""The same question twice: each time the answer is what can be seen then."""

from __future__ import annotations

from collections.abc import Sequence

from data_pipeline.generator.behaviours.ground import Ground, draw_subject
from data_pipeline.generator.plan import Plan


def plan(ground: Ground) -> Plan | None:
    """Two frames of one subject, with different values where there are any; None where no state is shown twice."""
    shown = {
        subject: frames
        for subject in ground.subjects
        if len(
            frames := [(f, s.value) for b, e, s in ground.stretches(subject) for f in range(max(1, b), min(e, ground.last + 1))]
        )
        > 1
    }
    changing = {subject: frames for subject, frames in shown.items() if len({value for _, value in frames}) > 1}
    subject = draw_subject(ground, list(changing or shown)) if shown else ""
    frames = shown[subject] if shown else _going_on(ground)
    if len(frames) < 2:
        return None
    first, second = _two(ground, frames)
    question = ground.question(first, "ask" if shown else "current", "repeat", subject)
    again = ground.question(second, question.task, "repeat", subject, text=question.text)
    return ground.plan("repeat", question, again)


def _two(ground: Ground, frames: Sequence[tuple[int, str]]) -> tuple[int, int]:
    """Two frames of (frame, value) in order, with different values where there are any."""
    end = frames[-1][1]
    # Every frame up to the last one of another value than the end's has another value behind it.
    last_other = max((frame for frame, value in frames if value != end), default=-1)
    firsts = [(frame, value) for frame, value in frames[:-1] if value != end or frame < last_other]
    first, value = ground.rng.choice(firsts or frames[:-1])
    later = [frame for frame, _ in frames if frame > first]
    different = [frame for frame, v in frames if frame > first and v != value]
    return first, ground.rng.choice(different or later)


def _going_on(ground: Ground) -> list[tuple[int, str]]:
    """(frame, what goes on), where there are no states."""
    return [(f, s.text) for begin, end, s in ground.going_on() for f in range(max(1, begin), min(end, ground.last + 1))]
