"""A correction: the answer was right, the video changes, and the assistant puts it right without being asked again."""

from __future__ import annotations

import itertools

from data_pipeline.generator.behaviours.ground import COUNT, Ground, draw_subject
from data_pipeline.generator.plan import Plan


def plan(ground: Ground) -> Plan | None:
    """A question on a state that another value follows; None where no state changes."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for subject in ground.subjects:
        shown = ground.stretches(subject)
        for (begin, end, before), (_, _, after) in itertools.pairwise(shown):
            if subject != COUNT and before.value != after.value and max(1, begin) < end:
                spans.setdefault(subject, []).append((max(1, begin), end - 1))
    if not spans:
        return _going_on(ground)
    subject = draw_subject(ground, ground.steady(list(spans)))
    first, last = ground.rng.choice(spans[subject])
    return ground.plan("correction", ground.question(ground.rng.randint(first, last), "keep", "correction", subject))


def _going_on(ground: Ground) -> Plan | None:
    """The same about what goes on, where there are no states."""
    options = [
        (max(1, begin), end - 1)
        for (begin, end, before), (_, _, after) in itertools.pairwise(ground.going_on())
        if before.text != after.text and max(1, begin) < end
    ]
    if not options:
        return None
    first, last = ground.rng.choice(options)
    return ground.plan("correction", ground.question(ground.rng.randint(first, last), "keep", "correction"))
