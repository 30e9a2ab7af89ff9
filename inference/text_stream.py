"""Tokens to text as they come: a piece is let out once its bytes form whole characters."""

from __future__ import annotations

from data_pipeline.text.tokenizer import Tokenizer

_INCOMPLETE = "\ufffd"
_MOST_BYTES = 8
"""Tokens after which broken bytes are let out as they are; a character never needs more."""


class TextStream:
    """Holds back the tokens of an unfinished character."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._held: list[int] = []

    @property
    def held(self) -> list[int]:
        """Tokens of a character that is not complete."""
        return list(self._held)

    def push(self, token: int) -> str:
        """The text that becomes complete with this token, possibly ''."""
        self._held.append(token)
        text = self._tokenizer.decode(self._held)
        if text.endswith(_INCOMPLETE) and len(self._held) < _MOST_BYTES:
            return ""
        self._held.clear()
        return text

    def flush(self) -> str:
        """Whatever is held back."""
        text = self._tokenizer.decode(self._held) if self._held else ""
        self._held.clear()
        return text
