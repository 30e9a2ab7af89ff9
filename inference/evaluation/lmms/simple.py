"""The adapter for tasks of pictures and one text: (context, generation arguments, doc_to_visual, document, task, split)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.evaluation.harness.question import Decoding, Question
from inference.evaluation.lmms.adapter import Adapter
from inference.evaluation.lmms.requests import Advance, clips_of, simple_rounds


class SimpleAdapter(Adapter):
    """All clips of a document stand before its text."""

    is_simple = True

    def _generation(self, arguments: Sequence[Any]) -> dict[str, Any]:
        return dict(arguments[1] or {})

    def _question(self, arguments: Sequence[Any], decoding: Decoding) -> Question:
        context, _, doc_to_visual = arguments[:3]
        return Question.ask(clips_of(doc_to_visual(self._document(arguments))), context, decoding)

    def _rounds(self, arguments: Sequence[Any], decoding: Decoding) -> Advance:
        """Arguments have `doc_to_text` behind `doc_to_visual` here."""
        doc = self._document(arguments)
        return simple_rounds(lambda: self._question(arguments, decoding), arguments[3], doc, decoding)
