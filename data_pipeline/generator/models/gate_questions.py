"""Gate questions to a model: the questions of a dialogue without the video, and each on the video up to a second."""

from __future__ import annotations

from collections.abc import Sequence

from data_pipeline.generator.author import Unfit
from data_pipeline.generator.backends.chat import ChatBackend, ChatRequest
from data_pipeline.generator.models.asking import ask, chat_request
from data_pipeline.generator.models.fields import Fields
from data_pipeline.generator.models.views import LANGUAGES, timeline_lines
from data_pipeline.generator.plan import Draft
from data_pipeline.generator.stages.agree import agree
from data_pipeline.generator.stages.seen import BEFORE, Leak, questions_with_answers
from data_pipeline.timeline.timeline import Timeline

STAGE = "judge"


def blind_request(questions: Sequence[str], language: str, seed: int = 0) -> ChatRequest:
    """All questions of a dialogue, without the video."""
    lines = "\n".join(f"{i}. {text}" for i, text in enumerate(questions))
    return chat_request("blind", f"Language: {LANGUAGES[language]}\n\nQuestions:\n{lines}", seed=seed)


def read_blind(answer: Fields, number: int) -> list[str]:
    """The guesses.

    Raises:
        Unfit: they are not as many as the questions.
    """
    guesses = answer.texts("answers", number)
    if len(guesses) != number:
        raise Unfit(STAGE, f"answers has {len(guesses)} entries; {number} questions were asked")
    return guesses


def blind_share(backend: ChatBackend, draft: Draft, seed: int = 0) -> float:
    """Share of the answers that a model gives without the video, 0..1; one call, and one more for each guess in other words.

    Raises:
        Unfit: the model's answers cannot be used.
    """
    pairs = questions_with_answers(draft)
    if not pairs:
        return 0.0
    request = blind_request([q.text for q, _ in pairs], draft.plan.language, seed)
    guesses = read_blind(ask(backend, request, STAGE), len(pairs))
    hits = [same(backend, q.text, u.text, guess) for (q, u), guess in zip(pairs, guesses, strict=True)]
    return sum(hits) / len(hits)


def seen_request(question: str, timeline: Timeline, t: float, language: str) -> ChatRequest:
    """A question on the video up to second `t`."""
    text = f"Language: {LANGUAGES[language]}\n\nSeen so far:\n{timeline_lines(timeline.until(t))}\n\nQuestion: {question}"
    return chat_request("seen", text)


def read_seen(answer: Fields) -> str:
    """The answer; empty where the model finds none proven."""
    return answer.text("answer") if answer.flag("known") else ""


def leaks(backend: ChatBackend, draft: Draft, timeline: Timeline) -> list[Leak]:
    """For every answer: whether a model gives it without its evidence, and with it; two calls each, and up to two to compare.

    Raises:
        Unfit: the model's answers cannot be used.
    """
    found = []
    for question, utterance in questions_with_answers(draft):
        answers = []
        for t in (utterance.evidence[0] - BEFORE, utterance.t):
            request = seen_request(question.text, timeline, t, draft.plan.language)
            answers.append(read_seen(ask(backend, request, STAGE)) if t >= 0 else "")
        before, after = (same(backend, question.text, utterance.text, text) for text in answers)
        found.append(Leak(draft.utterances.index(utterance), before, after))
    return found


def same(backend: ChatBackend, question: str, answer: str, other: str) -> bool:
    """Whether two answers say the same: by their words where those agree, otherwise the model is asked.

    Raises:
        Unfit: the model's answer cannot be used.
    """
    if not other:
        return False
    if agree(answer, other, question):
        return True
    text = f"Question: {question}\nFirst answer: {answer}\nSecond answer: {other}"
    return ask(backend, chat_request("same", text), STAGE).flag("same")
