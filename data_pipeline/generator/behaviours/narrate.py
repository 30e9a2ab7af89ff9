"""Narration: all that happens is told as it happens."""

from __future__ import annotations

from data_pipeline.generator.behaviours.ground import Ground, narration
from data_pipeline.generator.plan import Plan


def plan(ground: Ground) -> Plan | None:
    """One request at the start; None where nothing happens."""
    if not ground.events:
        return None
    return ground.plan("narrate", narration(ground))
