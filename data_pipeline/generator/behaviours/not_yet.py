"""The user asks whether something has happened that has not: `not yet`, and the truth once it has."""

from __future__ import annotations

from data_pipeline.generator.behaviours.alert import targets
from data_pipeline.generator.behaviours.ground import Ground
from data_pipeline.generator.plan import Plan


def plan(ground: Ground) -> Plan | None:
    """A question ahead of the first time that something happens; None where all happens at the very start."""
    firsts: dict[str, int] = {}
    for frame, segment in ground.events:
        for target in targets(segment.text):
            firsts.setdefault(target, frame)
    options = [
        (frame, target) for target, frame in sorted(firsts.items()) if frame >= 2 and ground.matching(target)[0][0] == frame
    ]
    if not options:
        return None
    frame, target = ground.rng.choice(options)
    asked = ground.rng.randint(1, frame - 1)
    return ground.plan("not_yet", ground.question(asked, "yet", "not_yet", target=target, expected="later"))
