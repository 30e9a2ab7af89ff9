"""Answers to questions: right or wrong by the question's kind."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

from inference.evaluation.schema import Question, Scenario, Trace

_SPECIAL = re.compile(r"<\|[^|]*\|>")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalise(text: str) -> str:
    """Lower case, without special tokens, punctuation and superfluous blanks."""
    return " ".join(_SPECIAL.sub(" ", text).lower().translate(_PUNCTUATION).split())


def answer_key(text: str, kind: str) -> str:
    """The part of an answer that counts: the last word for a direction, all of it otherwise."""
    plain = normalise(text)
    return plain.rsplit(" ", 1)[-1] if kind == "direction" else plain


def is_right(reply: str, question: Question) -> bool:
    """Whether a reply answers the question."""
    key = answer_key(question.answer, question.kind)
    return key != "" and answer_key(reply, question.kind) == key


def question_scores(pairs: Iterable[tuple[Trace, Scenario]]) -> dict[str, float]:
    """Share of right answers by kind, and over all questions as `all`; empty where nothing was asked."""
    right: dict[str, int] = {}
    asked: dict[str, int] = {}
    for trace, scenario in pairs:
        for question, reply in zip(scenario.questions, trace.answers, strict=True):
            for kind in (question.kind, "all"):
                asked[kind] = asked.get(kind, 0) + 1
                right[kind] = right.get(kind, 0) + is_right(reply, question)
    return {kind: right[kind] / count for kind, count in asked.items()}
