"""Style writer: the lines of a dialogue in the words of a persona, within a budget of words."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from data_pipeline.generator.author import Unfit
from data_pipeline.generator.models.fields import Fields, spoken_fault
from data_pipeline.generator.models.views import LANGUAGES
from data_pipeline.generator.plan import Draft
from data_pipeline.realtime.dialogue import Utterance

STAGE = "style"
LEAST_WORDS = 4
LAST_LINE_SECONDS = 4.0
"""Time that the last line is given: how long the video goes on behind it is not known here."""


def word_budgets(utterances: Sequence[Utterance], words_per_second: float) -> list[int]:
    """Words that fit between each line and the next one."""
    ends = [u.t for u in utterances[1:]] + [utterances[-1].t + LAST_LINE_SECONDS]
    return [max(LEAST_WORDS, int((end - u.t) * words_per_second)) for u, end in zip(utterances, ends, strict=True)]


def count_words(text: str) -> int:
    """Words; in Chinese every two characters count as one."""
    han = sum("㐀" <= c <= "鿿" for c in text)
    return len(re.sub(r"[㐀-鿿]", " ", text).split()) + (han + 1) // 2


def style_text(draft: Draft, persona: str, budgets: Sequence[int]) -> str:
    """What the style writer reads."""
    lines = [f"{i} (at most {b} words): {u.text}" for i, (u, b) in enumerate(zip(draft.utterances, budgets, strict=True))]
    return f"Persona: {persona}\nLanguage: {LANGUAGES[draft.plan.language]}\n\nLines:\n" + "\n".join(lines)


def read_style(answer: Fields, draft: Draft, budgets: Sequence[int]) -> Draft:
    """The draft with new texts. A line that breaks its budget or has other numbers keeps the policy's words.

    Raises:
        Unfit: the lines are not as many as there were, or are in another language.
    """
    texts = answer.texts("lines", 10_000)
    if len(texts) != len(draft.utterances):
        raise Unfit(STAGE, f"lines has {len(texts)} entries; the dialogue has {len(draft.utterances)} lines")
    styled = []
    for index, (utterance, text, budget) in enumerate(zip(draft.utterances, texts, budgets, strict=True)):
        fault = spoken_fault(text, draft.plan.language)
        if fault:
            raise Unfit(STAGE, f"lines[{index}] is {text!r}; {fault}")
        kept = text and count_words(text) <= budget and re.findall(r"\d+", text) == re.findall(r"\d+", utterance.text)
        styled.append(dataclasses.replace(utterance, text=text) if kept else utterance)
    return dataclasses.replace(draft, utterances=tuple(styled))
