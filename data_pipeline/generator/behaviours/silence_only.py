"""Silence: the user wants quiet, or asks for something that the video never shows."""

from __future__ import annotations

from data_pipeline.generator.behaviours.ground import Ground, narration
from data_pipeline.generator.plan import Plan
from data_pipeline.world.palette import KINDS


def plan(ground: Ground) -> Plan | None:
    """Quiet from the start, quiet after a narration has begun, or a question without an answer."""
    if ground.last < 1:
        return None
    makers = [at_once, after_narration, unanswerable]
    ground.rng.shuffle(makers)
    return next(plan for make in [*makers, at_once] if (plan := make(ground)) is not None)


def at_once(ground: Ground) -> Plan | None:
    """A call for quiet early on."""
    frame = ground.rng.randint(1, max(1, ground.last // 3))
    return ground.plan("silence_only", ground.question(frame, "quiet", "silence_only", expected="never"))


def after_narration(ground: Ground) -> Plan | None:
    """A narration that is called off between two events."""
    frames = sorted({frame for frame, _ in ground.events})
    if len(frames) < 2 or frames[-1] < 3:
        return None
    frame = ground.rng.randint(max(2, frames[0] + 1), max(2, frames[-1]))
    return ground.plan("silence_only", narration(ground), ground.question(frame, "quiet", "silence_only", expected="never"))


def unanswerable(ground: Ground) -> Plan | None:
    """A question on an object that is not there; only where all objects are known, as in the world."""
    absent = [f"colour:{kind}" for kind in KINDS if f"colour:{kind}" not in ground.subjects]
    if "visible" not in ground.subjects or not absent:
        return None
    frame = ground.rng.randint(1, ground.last)
    subject = ground.rng.choice(absent)
    return ground.plan("silence_only", ground.question(frame, "ask", "silence_only", subject, expected="never"))
