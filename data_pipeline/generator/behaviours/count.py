"""Counting: the number at once, and again whenever it changes; without such a state, how often something happens."""

from __future__ import annotations

from data_pipeline.generator.behaviours.ground import COUNT, Ground
from data_pipeline.generator.plan import Plan, Question


def plan(ground: Ground) -> Plan | None:
    """One request in the first two thirds; None where nothing can be counted."""
    question = draw(ground, "count", 1, max(1, 2 * ground.last // 3))
    return None if question is None else ground.plan("count", question)


def draw(ground: Ground, behaviour: str, first: int, last: int) -> Question | None:
    """A request for a count that arrives before frame `first`..`last`."""
    frames = [f for b, e, _ in ground.stretches(COUNT) for f in range(max(b, first), min(e, last + 1))]
    if frames:
        return ground.question(ground.rng.choice(frames), "count", behaviour, COUNT)
    options = []
    for target in sorted({s.text for _, s in ground.some_events}):
        times = [frame for frame, _ in ground.matching(target, first - 1)]
        # The last but one occurrence still lies ahead, so that there are two to count.
        if len(times) > 1 and first <= min(last, times[-2]):
            options.append((target, min(last, times[-2])))
    if not options:
        return None
    target, latest = ground.rng.choice(options)
    return ground.question(ground.rng.randint(first, latest), "count_events", behaviour, target=target, expected="later")
