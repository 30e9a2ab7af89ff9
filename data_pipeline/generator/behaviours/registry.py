"""Behaviours by name."""

from __future__ import annotations

from collections.abc import Callable

from data_pipeline.generator.behaviours import (
    alert,
    correction,
    count,
    delayed,
    direct,
    interruption,
    narrate,
    not_yet,
    repeat,
    retraction,
    several_turns,
    silence_only,
)
from data_pipeline.generator.behaviours.ground import Ground
from data_pipeline.generator.plan import Plan
from model.errors import InputError

Planner = Callable[[Ground], Plan | None]

PLANNERS: dict[str, Planner] = {
    "narrate": narrate.plan,
    "direct": direct.plan,
    "delayed": delayed.plan,
    "silence_only": silence_only.plan,
    "correction": correction.plan,
    "interruption": interruption.plan,
    "retraction": retraction.plan,
    "repeat": repeat.plan,
    "count": count.plan,
    "alert": alert.plan,
    "several_turns": several_turns.plan,
    "not_yet": not_yet.plan,
}


def plan_behaviour(name: str, ground: Ground) -> Plan | None:
    """The questions of one behaviour; None where the video does not lend itself to it, two frames at least.

    Raises:
        InputError: there is no such behaviour.
    """
    if name not in PLANNERS:
        raise InputError(f"behaviours.{name} is unknown; use one of {', '.join(PLANNERS)}")
    return PLANNERS[name](ground) if ground.last >= 1 else None
