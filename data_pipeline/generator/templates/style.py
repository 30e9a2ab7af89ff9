"""Registers: `terse` leaves the policy's short answers alone, `plain` makes whole sentences of them."""

from __future__ import annotations

import dataclasses
import random
import re

from data_pipeline.generator.plan import Draft, Question
from data_pipeline.generator.templates import chinese
from data_pipeline.generator.templates.phrases import TABLES, Phrases
from data_pipeline.generator.templates.scene_words import clause, is_noun, take_apart, with_article
from data_pipeline.realtime.dialogue import Utterance

PERSONAS = ("terse", "plain")
OPENERS = (
    "a",
    "an",
    "the",
    "he",
    "she",
    "it",
    "they",
    "his",
    "her",
    "its",
    "their",
    "two",
    "three",
    "some",
    "there",
    "this",
    "one",
)
"""First words of a sentence that are written small behind other words."""


def plain(draft: Draft, rng: random.Random, source: str = "en") -> Draft:
    """Whole sentences: for every sort of answer one wording, drawn for the dialogue."""
    language = draft.plan.language
    phrases = Phrases(language, source)
    drawn: dict[str, str] = {}
    utterances = []
    for utterance in draft.utterances:
        question = _question(draft, utterance)
        options = _options(language, question, utterance)
        pattern = drawn.setdefault("|".join(options), rng.choice(options))
        utterances.append(dataclasses.replace(utterance, text=_fill(pattern, utterance, question, phrases)))
    return dataclasses.replace(draft, utterances=tuple(utterances))


def _question(draft: Draft, utterance: Utterance) -> Question | None:
    """The request behind an utterance: by its text, since the plan may hold an empty one that is no turn."""
    if utterance.answers is None:
        return draft.plan.questions[0] if draft.plan.questions and not draft.plan.questions[0].text else None
    asked = [q for q in draft.plan.questions if q.text]
    return asked[utterance.answers]


def _options(language: str, question: Question | None, utterance: Utterance) -> tuple[str, ...]:
    table: dict[str, tuple[str, ...]] = TABLES[language].PLAIN
    task = question.task if question is not None else "narrate"
    prefix = question.subject.split(":")[0] if question is not None else ""
    if utterance.text in (TABLES[language].NOTHING + TABLES[language].STOP, "nothing."):
        return table["*"]
    kind = utterance.kind
    keys = {
        "correction": (f"correction:{prefix}", "correction"),
        "count": ("count_events" if task == "count_events" else "count",),
        "answer": (f"{'ask' if task == 'keep' else task}:{prefix}", task),
    }.get(kind, (kind,))
    return next((table[key] for key in keys if key in table), table["*"])


def _fill(pattern: str, utterance: Utterance, question: Question | None, phrases: Phrases) -> str:
    core = _core(utterance, phrases.language)
    if phrases.language == "en":
        core = " and ".join(_articles(part) for part in core.split(" and ")) if utterance.kind != "count" else core
    name = question.subject.partition(":")[2] if question is not None else ""
    if pattern.find("{x}") > 0:
        core = _inside(core)
    return pattern.format(x=core, X=core[:1].upper() + core[1:], name=phrases.name(name) if name else "")


def _inside(text: str) -> str:
    """A sentence behind other words: no capital where its first word is none that always has one."""
    first, _, rest = text.partition(" ")
    return f"{first.lower()} {rest}" if first.lower() in OPENERS and rest else text


def _core(utterance: Utterance, language: str) -> str:
    """The answer without its full stop and without what the policy puts in front of it."""
    table = TABLES[language]
    text = utterance.text.rstrip(".。")
    if utterance.kind == "correction":
        text = text.removeprefix(table.NOW.format(value=""))
    if utterance.kind == "answer":
        text = text.removeprefix(table.YES.format(text=""))
    return text.removeprefix(chinese.WRITTEN) if language == "zh" else text


def _articles(text: str) -> str:
    """`a red ball appears`, `a red ball, a cat and a blue flag`; other texts stay."""
    happening = take_apart(text)
    if happening is not None and (happening.subject or happening.whole):
        # What has no colour has been seen before: `the ball turns blue`.
        known = happening.verb == "turns"
        return clause(text).replace(with_article(happening.subject), f"the {happening.subject}", 1) if known else clause(text)
    parts = re.split(r"(, | and |(?:carries|circles) )", text)
    return "".join(with_article(part) if is_noun(part) else part for part in parts)
