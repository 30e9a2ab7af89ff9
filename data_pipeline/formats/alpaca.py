"""Rows of instruction, input and output; and plain texts for pretraining."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.formats.parsed import MediaColumns, ParsedRow, refuse_foreign, with_markers
from data_pipeline.formats.report import RowError
from data_pipeline.schema import Message


@dataclass(frozen=True)
class AlpacaFormat:
    """Names of the columns; None where the rows have no such column."""

    prompt: str | None = "instruction"
    query: str | None = "input"
    response: str | None = "output"
    """Without this column the prompt is a text to learn, and the samples are of the template mllama_pretrain."""
    history: str | None = "history"
    """[[question, answer], ...] that come before; answers are learned too."""
    system: str | None = "system"
    media: MediaColumns = field(default_factory=MediaColumns)

    def parse(self, row: Mapping[str, Any]) -> ParsedRow:
        """Raises RowError where the row must be dropped."""
        refuse_foreign(row, self.media)
        prompt = "\n".join(filter(None, (_text(row, self.prompt), _text(row, self.query))))
        if self.response is None:
            if not prompt:
                raise RowError("no text", f"column {self.prompt} is empty")
            learned = [Message(role="user", content=""), Message(role="assistant", content=with_markers(prompt))]
            return ParsedRow(learned, self.media.entries(row), template="mllama_pretrain")
        answer = row.get(self.response)
        if not isinstance(answer, str) or not answer:
            raise RowError("no answer", f"column {self.response} is {answer!r:.60}")
        texts = [*self._history(row), prompt, answer]
        messages = [Message(role=("user", "assistant")[i % 2], content=with_markers(t)) for i, t in enumerate(texts)]
        system = _text(row, self.system)
        if system:
            messages.insert(0, Message(role="system", content=system))
        return ParsedRow(messages, self.media.entries(row))

    def _history(self, row: Mapping[str, Any]) -> list[str]:
        pairs = (row.get(self.history) if self.history else None) or []
        if not isinstance(pairs, list):
            raise RowError("history cannot be read", f"column {self.history} is {pairs!r:.60}")
        for pair in pairs:
            if not isinstance(pair, list | tuple) or len(pair) != 2 or not all(isinstance(t, str) for t in pair):
                raise RowError("history cannot be read", f"{pair!r:.60} is no pair of texts")
        return [text for pair in pairs for text in pair]


def _text(row: Mapping[str, Any], column: str | None) -> str:
    value = row.get(column) if column else None
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RowError("column is not text", f"column {column} is {value!r:.60}")
    return value
