"""Several questions one after the other, some on what was to be seen before."""

from __future__ import annotations

import itertools

from data_pipeline.generator.behaviours import direct
from data_pipeline.generator.behaviours.ground import Ground, draw_subject
from data_pipeline.generator.plan import Plan, Question


def plan(ground: Ground) -> Plan | None:
    """Two to four questions with at least one frame between them, of which at least one needs memory where there is anything
    to remember; None where the video is too short or too empty."""
    memories = _memories(ground)
    if not memories and not ground.subjects:
        return None
    number = min(ground.rng.randint(2, 4), ground.last // 2)
    if number < 2:
        return None
    questions: list[Question] = []
    if memories:
        task, subject, first = ground.rng.choice(memories)
        questions.append(ground.question(ground.rng.randint(first, ground.last), task, "several_turns", subject))
    free = list(range(1, ground.last + 1))
    ground.rng.shuffle(free)
    for frame in free:
        if len(questions) >= number:
            break
        if all(abs(ground.frame_of(q.t) - frame) >= 2 for q in questions):
            question = direct.draw(ground, "several_turns", frame, frame)
            questions += [question] if question is not None else []
    return ground.plan("several_turns", *questions) if len(questions) > 1 else None


def _memories(ground: Ground) -> list[tuple[str, str, int]]:
    """(task, subject, first frame at which there is something to remember)."""
    found = []
    frames = [frame for frame, _ in ground.events]
    if frames and frames[0] + 1 <= ground.last:
        found.append(("last", "", frames[0] + 1))
    changed = {}
    for subject in ground.steady(ground.subjects):
        shown = ground.stretches(subject)
        # That there was nothing before shows no memory: so it is as long as nothing has happened.
        told = [(old, new) for old, new in itertools.pairwise(shown) if old[2].value not in (new[2].value, "nothing")]
        later = [new[0] for _, new in told]
        if later:
            changed[subject] = max(1, later[0])
    if changed:
        subject = draw_subject(ground, list(changed))
        found.append(("before", subject, changed[subject]))
    return found
