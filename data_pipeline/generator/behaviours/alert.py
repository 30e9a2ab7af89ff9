"""An alert: one line for every time that something happens, and none where it never does."""

from __future__ import annotations

from data_pipeline.generator.behaviours.ground import Ground
from data_pipeline.generator.plan import Plan
from data_pipeline.world.palette import COLOURS, KINDS

NEVER = 0.25
"""Share of the alerts that never fire."""


def plan(ground: Ground) -> Plan | None:
    """A request ahead of an event, or, in a quarter of the cases, behind the last one of its kind."""
    if ground.last < 2 or not ground.events:
        return None
    if ground.rng.random() < NEVER:
        over = past(ground)
        if over is not None:
            return over
    coming = [(frame, s) for frame, s in ground.events if frame >= 2]
    if not coming:
        return past(ground)
    frame, segment = ground.rng.choice(coming)
    target = ground.rng.choice(targets(segment.text))
    asked = ground.rng.randint(1, frame - 1)
    return ground.plan("alert", ground.question(asked, "alert", "alert", target=target, expected="later"))


def past(ground: Ground) -> Plan | None:
    """A request for something that does not happen any more."""
    options = []
    for _, segment in ground.some_events:
        for target in targets(segment.text):
            latest = ground.matching(target)[-1][0]
            if latest < ground.last:
                options.append((latest, target))
    if not options:
        return None
    latest, target = ground.rng.choice(options)
    asked = ground.rng.randint(latest + 1, ground.last)
    return ground.plan("alert", ground.question(asked, "alert", "alert", target=target, expected="never"))


def targets(text: str) -> list[str]:
    """What to wait for so that an event counts: all of its words, or, of the world's events, those without the colour."""
    words = text.split()
    if len(words) == 3 and words[0] in COLOURS and words[1] in KINDS:
        return [text, " ".join(words[1:]), " ".join(words[1:])]
    return [text]
