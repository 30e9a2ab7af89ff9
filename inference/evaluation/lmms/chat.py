"""The adapter for tasks of messages: (context, doc_to_messages, generation arguments, document, task, split)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.evaluation.harness.question import Decoding, Question
from inference.evaluation.lmms.adapter import Adapter
from inference.evaluation.lmms.requests import Advance, chat_rounds, turns_of


class ChatAdapter(Adapter):
    """Clips stand where the messages have them; a system message takes the place of the checkpoint's own."""

    is_simple = False

    def _generation(self, arguments: Sequence[Any]) -> dict[str, Any]:
        return dict(arguments[2] or {})

    def _question(self, arguments: Sequence[Any], decoding: Decoding) -> Question:
        return Question(turns_of(arguments[1](self._document(arguments))), decoding)

    def _rounds(self, arguments: Sequence[Any], decoding: Decoding) -> Advance:
        return chat_rounds(arguments[1], self._document(arguments), decoding)
