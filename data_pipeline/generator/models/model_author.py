"""The author that asks a model behind an endpoint, and leaves to rules what needs no model."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.generator.author import Author, Unfit
from data_pipeline.generator.backends.chat import ChatBackend
from data_pipeline.generator.models.answering import decisions_so_far, due, read_action
from data_pipeline.generator.models.asking import ask, chat_request
from data_pipeline.generator.models.changing import read_changes
from data_pipeline.generator.models.judging import read_judgement
from data_pipeline.generator.models.normalising import NOTES_PER_CALL, notes_text, read_segments, rebuilt
from data_pipeline.generator.models.planning import ASSIGNMENTS, plan_text, read_plan
from data_pipeline.generator.models.prompt_files import VERSION, prompts_digest
from data_pipeline.generator.models.styling import read_style, style_text, word_budgets
from data_pipeline.generator.models.views import LANGUAGES, draft_view, known_view, timeline_lines
from data_pipeline.generator.plan import Action, Draft, Judgement, Known, Plan
from data_pipeline.generator.templates import PERSONAS, TemplateAuthor
from data_pipeline.timeline.timeline import Change, Timeline
from model.errors import InputError

STAGES = ("normalise", "changes", "plan", "style", "judge")
BY_RULES = ("narrate", "silence_only", "count", "retraction", "interruption")
"""Behaviours whose requests need no model, where the timeline is in the language of the dialogue."""


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What the model is asked for."""

    stages: tuple[str, ...] = STAGES
    """Of `STAGES`; rules do the others. Answers to the model's own questions always come from the model."""
    by_rules: tuple[str, ...] = BY_RULES
    """Behaviours that the fallback plans and answers, wherever it can."""
    most_decisions: int = 48
    """Calls of the answer policy for one dialogue; one that needs more is rejected."""
    words_per_second: float = 3.0
    """Budget of the style writer."""
    temperature: float = 0.7
    """Of the planner and the style writer; all others answer at 0."""

    def __post_init__(self) -> None:
        for name in self.stages:
            if name not in STAGES:
                raise InputError(f"stages holds {name!r}; use {', '.join(STAGES)}")
        for name in self.by_rules:
            if name not in ASSIGNMENTS:
                raise InputError(f"by_rules holds {name!r}; use {', '.join(ASSIGNMENTS)}")
        for field, value in (("most_decisions", self.most_decisions), ("words_per_second", self.words_per_second)):
            if value <= 0:
                raise InputError(f"{field} is {value}; it must be above 0")


class ModelAuthor:
    """Writes dialogues with a model.

    Calls for one dialogue: ceil(segments / 60) to normalise, 1 for the changes, 1 for each behaviour that is tried, one for every
    frame from the first question on at which something becomes known, ends or is asked (`most_decisions` at most), 1 for the
    style and 1 to judge. Every answer is checked; one that cannot be used raises `Unfit`, which rejects the dialogue alone.
    """

    def __init__(self, backend: ChatBackend, fallback: Author | None = None, options: ModelOptions | None = None) -> None:
        """
        Args:
            backend: the endpoint.
            fallback: the author for all that needs no model; the templates where it is left out.
        """
        self.backend = backend
        self.fallback: Author = fallback if fallback is not None else TemplateAuthor()
        self.options = options or ModelOptions()

    @property
    def identity(self) -> str:
        """Version, model, options and digests of prompts and templates."""
        return f"models-{VERSION}-{prompts_digest()}|{self.backend.identity}|{self.options}|{self.fallback.identity}"

    def normalise(self, timeline: Timeline) -> Timeline:
        """Clean segments, states among them; times are those of the notes.

        Raises:
            Unfit: the answer cannot be used.
        """
        if "normalise" not in self.options.stages or not timeline.segments:
            return self.fallback.normalise(timeline)
        segments = []
        for start in range(0, len(timeline.segments), NOTES_PER_CALL):
            notes = timeline.segments[start : start + NOTES_PER_CALL]
            answer = ask(self.backend, chat_request("normalise", notes_text(timeline, notes)), "normalise")
            segments += read_segments(answer, notes, timeline.duration)
        return rebuilt(timeline, segments)

    def changes(self, timeline: Timeline) -> tuple[Change, ...]:
        """Observable changes.

        Raises:
            Unfit: the answer cannot be used.
        """
        if "changes" not in self.options.stages or not timeline.segments:
            return self.fallback.changes(timeline)
        text = f"Language: {LANGUAGES.get(timeline.language, timeline.language)}\n\n{timeline_lines(timeline)}"
        return read_changes(ask(self.backend, chat_request("changes", text), "changes"), timeline)

    def plan(
        self,
        timeline: Timeline,
        changes: Sequence[Change],
        frame_times: Sequence[float],
        behaviour: str,
        rng: random.Random,
        language: str,
    ) -> Plan | None:
        """Questions of the model, or of the fallback for behaviours that need no model and where it can say them.

        Raises:
            Unfit: the answer cannot be used.
        """
        if behaviour in self.options.by_rules or "plan" not in self.options.stages:
            plan = self.fallback.plan(timeline, changes, frame_times, behaviour, rng, language)
            if plan is not None or timeline.language == language or "plan" not in self.options.stages:
                return plan
        if len(frame_times) < 2 or not timeline.segments:
            return None
        text = plan_text(timeline, changes, frame_times, behaviour, language)
        request = chat_request("plan", text, self.options.temperature, rng.getrandbits(31))
        return read_plan(ask(self.backend, request, "plan"), changes, frame_times, behaviour, language)

    def act(self, known: Known) -> Action | None:
        """What to say now: by rules for requests of the fallback, otherwise one call where there is something to decide.

        Raises:
            Unfit: the answer cannot be used, or the dialogue needs more decisions than allowed.
        """
        if not known.asked:
            return None
        if known.asked[-1].task:
            return self.fallback.act(known)
        if not due(known):
            return None
        if decisions_so_far(known) > self.options.most_decisions:
            raise Unfit("answer", f"the dialogue needs more than {self.options.most_decisions} decisions; raise most_decisions")
        return read_action(ask(self.backend, chat_request("answer", known_view(known)), "answer"), known)

    def style(self, draft: Draft, persona: str, rng: random.Random) -> Draft:
        """The lines in the words of a persona: of the templates for what the templates wrote, of the model otherwise.

        Raises:
            Unfit: the answer cannot be used.
        """
        if not draft.utterances:
            return draft
        by_rules = all(q.task for q in draft.plan.questions)
        if by_rules and persona in PERSONAS:
            return self.fallback.style(draft, persona, rng)
        if "style" not in self.options.stages:
            return draft
        budgets = word_budgets(draft.utterances, self.options.words_per_second)
        request = chat_request("style", style_text(draft, persona, budgets), self.options.temperature, rng.getrandbits(31))
        return read_style(ask(self.backend, request, "style"), draft, budgets)

    def judge(self, draft: Draft, timeline: Timeline) -> Judgement | None:
        """Marks with the whole video in sight; None where judging is switched off.

        Raises:
            Unfit: the answer cannot be used.
        """
        if "judge" not in self.options.stages:
            return None
        return read_judgement(ask(self.backend, chat_request("judge", draft_view(draft, timeline)), "judge"))
