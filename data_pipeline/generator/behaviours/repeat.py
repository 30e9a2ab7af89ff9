"""The same question twice: each time the answer is what can be seen then."""

from __future__ import annotations

import dataclasses

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
    if not shown:
        return None
    subject = draw_subject(ground, list(changing or shown))
    pairs = [(a, b) for a in shown[subject] for b in shown[subject] if a[0] < b[0]]
    different = [(a, b) for a, b in pairs if a[1] != b[1]]
    (first, _), (second, _) = ground.rng.choice(different or pairs)
    question = ground.question(first, "ask", "repeat", subject)
    again = ground.question(second, "ask", "repeat", subject, text=question.text)
    return ground.plan("repeat", question, dataclasses.replace(again))
