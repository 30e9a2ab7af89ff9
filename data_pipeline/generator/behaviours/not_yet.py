"""The user asks whether something has happened that has not: `not yet`, and the truth once it has."""

from __future__ import annotations

from data_pipeline.generator.behaviours.alert import targets
from data_pipeline.generator.behaviours.ground import Ground
from data_pipeline.generator.plan import Plan


def plan(ground: Ground) -> Plan | None:
    """A question ahead of the first time that something happens; None where all happens at the very start."""
    options = []
    for target in sorted({target for _, segment in ground.some_events for target in targets(segment.text)}):
        first = ground.matching(target)[0][0]
        if first >= 2:
            options.append((first, target))
    if not options:
        return None
    frame, target = ground.rng.choice(options)
    asked = ground.rng.randint(1, frame - 1)
    return ground.plan("not_yet", ground.question(asked, "yet", "not_yet", target=target, expected="later"))
