"""One question to the endpoint, and its answer as checked fields."""

from __future__ import annotations

from data_pipeline.generator.author import Unfit
from data_pipeline.generator.backends.chat import ChatBackend, ChatRequest, MalformedAnswer, Refused
from data_pipeline.generator.models.fields import Fields
from data_pipeline.generator.models.prompt_files import prompt
from data_pipeline.generator.models.schemas import SCHEMAS

MOST_TOKENS = {
    "normalise": 4000,
    "changes": 3000,
    "plan": 1000,
    "answer": 200,
    "style": 2000,
    "judge": 300,
    "blind": 600,
    "seen": 100,
    "same": 20,
}
"""Tokens that an answer may have."""


def chat_request(role: str, text: str, temperature: float = 0.0, seed: int = 0) -> ChatRequest:
    """The request of a role."""
    return ChatRequest(
        role=role,
        system=prompt(role),
        text=text,
        images=(),
        schema=SCHEMAS[role],
        max_tokens=MOST_TOKENS[role],
        temperature=temperature,
        seed=seed,
    )


def ask(backend: ChatBackend, request: ChatRequest, stage: str) -> Fields:
    """The fields of the answer.

    Raises:
        Unfit: there is no answer that can be read: it was refused, or is no JSON of the schema.
        BackendError: the endpoint is down or the budget is spent; that concerns the build, not this dialogue.
    """
    try:
        return Fields(backend.complete(request), stage)
    except (MalformedAnswer, Refused) as error:
        raise Unfit(stage, f"the model's answer cannot be used: {error}") from error
