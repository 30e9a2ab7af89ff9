"""The user cuts in while a narration is being said: the rest of it stays unsaid, and what is asked now counts alone."""

from __future__ import annotations

from data_pipeline.generator.behaviours import count, direct
from data_pipeline.generator.behaviours.ground import Ground, narration
from data_pipeline.generator.plan import Plan, Question


def plan(ground: Ground) -> Plan | None:
    """A narration, and right after one of its sentences has begun another request; None where nothing is narrated."""
    told = sorted({frame for frame, _ in ground.events if 1 <= frame < ground.last})
    if not told:
        return None
    frame = ground.rng.choice(told) + 1
    return ground.plan("interruption", narration(ground), _cut_in(ground, frame))


def _cut_in(ground: Ground, frame: int) -> Question:
    kind = ground.rng.choice(("ask", "ask", "count", "quiet"))
    question = None
    if kind == "ask":
        question = direct.draw(ground, "interruption", frame, frame)
    elif kind == "count":
        question = count.draw(ground, "interruption", frame, frame)
    return question or ground.question(frame, "quiet", "interruption", expected="never")
