"""A request, its answer, and a server that gives it."""

from __future__ import annotations

from typing import Any

from data_pipeline.generator.backends.chat import ChatRequest
from data_pipeline.generator.backends.endpoint import EndpointBackend
from data_pipeline.generator.backends.open import open_backend
from data_pipeline.generator.backends.replay.recording import Entry, Recording
from data_pipeline.generator.backends.replay.server import ReplayServer
from data_pipeline.generator.models.schemas import SCHEMAS

ANSWER = {"action": "speak", "text": "red ball", "kind": "answer", "evidence": [1, 2], "answers": 0, "corrects": None}
RECORDING = Recording([Entry(answer=ANSWER, role="answer")])


def request(text: str = "It is 2 s.", **more: Any) -> ChatRequest:
    return ChatRequest(
        **{"role": "answer", "system": "Decide.", "text": text, "schema": SCHEMAS["answer"], "max_tokens": 100, **more}
    )


def backend(server: ReplayServer, **settings: Any) -> EndpointBackend:
    """Impatient enough for tests."""
    quick = {"base_url": server.url, "model": "m", "timeout": 5.0, "retries": 1, "wait": 0.01, "longest_wait": 0.02}
    return open_backend({**quick, **settings})
