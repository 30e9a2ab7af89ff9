"""The author without a model: behaviours by rules, words by templates."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from functools import lru_cache

from data_pipeline.generator.behaviours.ground import Ground
from data_pipeline.generator.behaviours.policy import TOLD_LEVELS, act
from data_pipeline.generator.behaviours.registry import plan_behaviour
from data_pipeline.generator.plan import Action, Draft, Judgement, Known, Plan
from data_pipeline.generator.templates.phrases import TABLES, Phrases
from data_pipeline.generator.templates.style import PERSONAS, plain
from data_pipeline.generator.templates.translate import Untranslatable
from data_pipeline.timeline.changes import detect_changes
from data_pipeline.timeline.normalise import normalise
from data_pipeline.timeline.timeline import Change, Timeline
from model.errors import InputError

VERSION = 1
"""Grows whenever a behaviour or a rule changes what is written."""


class TemplateAuthor:
    """Writes dialogues from clean timelines without any model; equal arguments give equal dialogues."""

    def __init__(self, unasked: float = 0.0) -> None:
        """
        Args:
            unasked: share of the narrations that nobody asks for. Beside other behaviours it should be 0: before the first turn
                of the user, nobody who watches could tell such a dialogue from one in which a question is still to come.

        Raises:
            InputError: `unasked` is no share.
        """
        if not 0 <= unasked <= 1:
            raise InputError(f"unasked is {unasked}; it must lie within 0..1")
        self.unasked = unasked

    @property
    def identity(self) -> str:
        """Version, options and digest of the templates."""
        return f"templates-{VERSION}-{_digest()}" + (f"-unasked{self.unasked:g}" if self.unasked else "")

    def normalise(self, timeline: Timeline) -> Timeline:
        """By rules."""
        return normalise(timeline)

    def changes(self, timeline: Timeline) -> tuple[Change, ...]:
        """By rules."""
        return detect_changes(timeline)

    def plan(
        self,
        timeline: Timeline,
        changes: Sequence[Change],
        frame_times: Sequence[float],
        behaviour: str,
        rng: random.Random,
        language: str,
    ) -> Plan | None:
        """By rules; None where the video does not lend itself to the behaviour, or its texts cannot be said in the language."""
        phrases = _phrases(language, timeline.language)
        if not speakable(timeline, phrases):
            return None
        return plan_behaviour(behaviour, Ground(timeline, changes, frame_times, rng, phrases, self.unasked))

    def act(self, known: Known) -> Action | None:
        """By rules, in short answers."""
        return act(known, _phrases(known.language, known.timeline.language))

    def style(self, draft: Draft, persona: str, rng: random.Random) -> Draft:
        """`terse` or `plain`.

        Raises:
            InputError: there is no such persona.
        """
        if persona not in PERSONAS:
            raise InputError(f"persona is {persona!r}; the templates have {', '.join(PERSONAS)}")
        return draft if persona == "terse" else plain(draft, rng)

    def judge(self, draft: Draft, timeline: Timeline) -> Judgement | None:
        """None: rules wrote it, rules cannot judge it."""
        return None


def speakable(timeline: Timeline, phrases: Phrases) -> bool:
    """Whether all that may have to be said can be said in the language of the phrases."""
    if phrases.source == phrases.language:
        return True
    try:
        for segment in timeline.segments:
            if segment.level == "state":
                phrases.translate(segment.value)
                prefix, _, name = segment.subject.partition(":")
                phrases.prefix(prefix)
                if name:
                    phrases.name(name)
            elif segment.level in TOLD_LEVELS:
                phrases.translate(segment.text)
    except Untranslatable:
        return False
    return True


@lru_cache(maxsize=16)
def _phrases(language: str, source: str) -> Phrases:
    return Phrases(language, source)


@lru_cache(maxsize=1)
def _digest() -> str:
    tables = {name: {k: v for k, v in vars(table).items() if k.isupper()} for name, table in TABLES.items()}
    return hashlib.sha256(json.dumps(tables, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:12]
