"""The user takes a request back before it could be answered: the evidence comes, and nothing is said."""

from __future__ import annotations

import itertools

from data_pipeline.generator.behaviours import delayed
from data_pipeline.generator.behaviours.alert import targets
from data_pipeline.generator.behaviours.ground import Ground
from data_pipeline.generator.plan import Plan, Question


def plan(ground: Ground) -> Plan | None:
    """A request that must wait, and `never mind` before its evidence; None where nothing has to be waited for."""
    found = _waiting(ground) if ground.rng.random() < 0.5 else None
    found = found or delayed.draw(ground, "retraction") or _waiting(ground)
    if found is None:
        return None
    question, answer = found
    asked = ground.frame_of(question.t)
    frame = ground.rng.randint(asked + 1, answer)
    return ground.plan("retraction", question, ground.question(frame, "retract", "retraction", expected="never"))


def _waiting(ground: Ground) -> tuple[Question, int] | None:
    """An alert that has not fired by the time at which it is taken back."""
    options = [(target, before, frame) for before, frame, target in _gaps(ground) if frame - before >= 2]
    if not options:
        return None
    target, before, frame = ground.rng.choice(options)
    asked = ground.rng.randint(before + 1, frame - 1)
    return ground.question(asked, "alert", "retraction", target=target, expected="later"), frame


def _gaps(ground: Ground) -> list[tuple[int, int, str]]:
    """(frame after which nothing of a target happens, frame at which it happens, target)."""
    found = []
    for target in sorted({t for _, s in ground.some_events for t in targets(s.text)}):
        frames = [0] + [frame for frame, _ in ground.matching(target)]
        found += [(a, b, target) for a, b in itertools.pairwise(frames)]
    return found
