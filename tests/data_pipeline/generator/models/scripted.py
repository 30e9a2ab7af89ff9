"""An endpoint that answers from a script."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from data_pipeline.generator.backends.chat import ChatRequest

Answer = dict[str, Any] | Exception | Callable[[ChatRequest], Any]

SILENT = {"action": "silent", "text": "", "kind": "answer", "evidence": [], "answers": None, "corrects": None}


class ScriptedBackend:
    """Answers each role by a dictionary, an exception, or a function of the request, and keeps all requests."""

    identity = "scripted"

    def __init__(self, script: Mapping[str, Answer]) -> None:
        self.script = script
        self.requests: list[ChatRequest] = []

    def complete(self, request: ChatRequest) -> dict[str, Any]:
        self.requests.append(request)
        answer = self.script[request.role]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer

    def asked(self, role: str) -> list[ChatRequest]:
        """The requests of a role."""
        return [r for r in self.requests if r.role == role]


def now_of(request: ChatRequest) -> float:
    """The present second of a request of the answer policy."""
    return float(request.text.rsplit("It is ", 1)[1].split(" ")[0])


def speak(text: str, evidence: tuple[float, float], **more: Any) -> dict[str, Any]:
    """A decision to say something."""
    return {**SILENT, "action": "speak", "text": text, "evidence": list(evidence), **more}
