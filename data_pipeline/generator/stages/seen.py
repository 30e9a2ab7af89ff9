"""Gate questions that need no model: what the rules answer on part of a video, and what somebody guesses who sees none of it."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from data_pipeline.generator.author import Author
from data_pipeline.generator.plan import Draft, Known, Question
from data_pipeline.generator.stages.agree import holds
from data_pipeline.realtime.dialogue import Utterance
from data_pipeline.timeline.timeline import Timeline

STATE_TASKS = ("ask", "keep", "before", "given", "last", "current")
"""Requests that can be asked again at any second, with an answer that depends on the video alone."""
BEFORE = 1e-6
"""Seconds by which a video is cut ahead of the evidence."""


@dataclass(frozen=True)
class Leak:
    """What becomes of an answer where the video stops right before its evidence, and where it goes on up to the answer."""

    utterance: int
    """Index into `Draft.utterances`."""
    before: bool
    """Whether the same answer comes without the evidence."""
    after: bool
    """Whether it comes with it."""

    @property
    def clean(self) -> bool:
        """Whether the answer rests on its evidence."""
        return self.after and not self.before


def question_of(draft: Draft, utterance: Utterance) -> Question | None:
    """The request that an utterance answers."""
    turns = [q for q in draft.plan.questions if q.text]
    return None if utterance.answers is None else turns[utterance.answers]


def checkable(draft: Draft) -> list[int]:
    """Indices of the utterances that answer or correct: the others have no question that could be asked again."""
    return [i for i, u in enumerate(draft.utterances) if u.kind in ("answer", "correction") and u.answers is not None]


def leaks_by_rules(draft: Draft, timeline: Timeline, author: Author) -> list[Leak]:
    """For every answer on a state: whether the rules give it without its evidence, and with it."""
    found = []
    for index in checkable(draft):
        utterance = draft.utterances[index]
        question = question_of(draft, utterance)
        if question is None or question.task not in STATE_TASKS:
            continue
        before = answer_at(author, question, timeline, utterance.evidence[0] - BEFORE, draft.plan.language)
        after = answer_at(author, question, timeline, utterance.t, draft.plan.language)
        found.append(Leak(index, bool(after) and before == after, holds(after, utterance.text, question.text)))
    return found


def answer_at(author: Author, question: Question, timeline: Timeline, t: float, language: str) -> str:
    """What an author says to a question when the video has run up to second `t`; empty where that is silence."""
    if t < 0:
        return ""
    asked = dataclasses.replace(question, t=min(question.t, t - BEFORE), expected="now", depends_on=())
    known = Known(t=t, frame=1, timeline=timeline.until(t), asked=(asked,), said=(), frames=(t - BEFORE, t), language=language)
    action = author.act(known)
    return "" if action is None else action.text


def question_kind(question: Question) -> str:
    """What sort of question it is: its task and the prefix of its subject; the text where neither says it."""
    return f"{question.task}:{question.subject.split(':')[0]}" if question.task and question.task != "given" else question.text


@dataclass
class Prior:
    """Answers by kind of question: what somebody guesses best who knows the corpus and sees no video."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, draft: Draft) -> None:
        """Count the answers of a dialogue."""
        for kind, text in answered(draft):
            self.counts.setdefault(kind, Counter())[text] += 1

    def guess(self, kind: str) -> str:
        """The most frequent answer; of several the first in order of the alphabet; empty for an unknown kind."""
        counts = self.counts.get(kind)
        return min(counts, key=lambda text: (-counts[text], text)) if counts else ""

    def share(self, kind: str) -> float:
        """How often that guess is right, 0..1."""
        counts = self.counts.get(kind)
        return counts[self.guess(kind)] / sum(counts.values()) if counts else 0.0

    def blind(self, draft: Draft) -> float:
        """Share of the answers of a dialogue that the guess hits, 0..1; 0 where it has none."""
        pairs = answered(draft)
        return sum(self.guess(kind) == text for kind, text in pairs) / len(pairs) if pairs else 0.0


def answered(draft: Draft) -> list[tuple[str, str]]:
    """(kind of question, answer) for every answer."""
    pairs: list[tuple[str, str]] = []
    for index in checkable(draft):
        question = question_of(draft, draft.utterances[index])
        if question is not None:
            pairs.append((question_kind(question), draft.utterances[index].text))
    return pairs


def questions_with_answers(draft: Draft) -> Sequence[tuple[Question, Utterance]]:
    """Every request beside each of its answers."""
    pairs = [(question_of(draft, draft.utterances[i]), draft.utterances[i]) for i in checkable(draft)]
    return [(q, u) for q, u in pairs if q is not None]
