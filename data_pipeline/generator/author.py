"""Who writes: what every author of dialogues can do, with a model or without one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

from data_pipeline.generator.plan import Action, Draft, Judgement, Known, Plan
from data_pipeline.timeline.timeline import Change, Timeline


class Unfit(Exception):
    """What an author returned cannot become part of a dialogue; the dialogue is rejected, the build goes on.

    Args:
        stage: as `Rejection.stage`.
        reason: one sentence that names the field and its value.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


class Author(Protocol):
    """The semantic stages. Every method is a pure function of its arguments (and of `identity`)."""

    @property
    def identity(self) -> str:
        """Version, model and digest of the prompts or templates: part of the hash of all that it makes."""

    def normalise(self, timeline: Timeline) -> Timeline:
        """The timeline with rough annotations turned into clean segments, states among them; times stay."""

    def changes(self, timeline: Timeline) -> tuple[Change, ...]:
        """Observable changes, in order of time."""

    def plan(
        self,
        timeline: Timeline,
        changes: Sequence[Change],
        frame_times: Sequence[float],
        behaviour: str,
        rng: random.Random,
        language: str,
    ) -> Plan | None:
        """Questions that show a behaviour; None where this video does not lend itself to it."""

    def act(self, known: Known) -> Action | None:
        """What to say at a frame, from what is known by then; None is silence."""

    def style(self, draft: Draft, persona: str, rng: random.Random) -> Draft:
        """The same in the words of a persona; times, evidence and facts stay."""

    def judge(self, draft: Draft, timeline: Timeline) -> Judgement | None:
        """Marks, with the whole video in sight; None where the author cannot judge."""
