"""Thinking before an answer: which system text asks for it, and how the two are told apart as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator

THINKING_MODES = ("no_thinking", "deep_thinking")
SYSTEM_PROMPT_TYPES = ("video", "text_image")
_MARKS = {"<thinking>": True, "</thinking>": False, "<answer>": False, "</answer>": False}
"""Tag -> whether thoughts follow it."""


def system_name(thinking_mode: str, system_prompt_type: str) -> str:
    """Name among the default system prompts."""
    return system_prompt_type if thinking_mode == "no_thinking" else f"{system_prompt_type}_thinking"


class AnswerOnly:
    """Lets through what is not thought: text outside of `<thinking>` ... `</thinking>`, without the tags of the answer.

    The text comes in pieces of any length; what may be the beginning of a tag is held back until that is clear.

    Args:
        show: takes the pieces that are let through.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self._show = show
        self._held = ""
        self._thinking = False
        self._begun = False

    def __call__(self, piece: str) -> None:
        self._held += piece
        for text in self._settled():
            self._let(text)

    def close(self) -> None:
        """The text is over: let out what was held back."""
        held, self._held = self._held, ""
        self._let(held)

    def _settled(self) -> Iterator[str]:
        """The parts of the held text that can no longer become a tag; tags themselves only switch."""
        while True:
            places = [(self._held.find(mark), mark) for mark in _MARKS if mark in self._held]
            if not places:
                break
            place, mark = min(places)
            before, self._held = self._held[:place], self._held[place + len(mark) :]
            yield before
            self._thinking = _MARKS[mark]
        open_end = max((n for mark in _MARKS for n in range(1, len(mark)) if self._held.endswith(mark[:n])), default=0)
        sure = len(self._held) - open_end
        text, self._held = self._held[:sure], self._held[sure:]
        yield text

    def _let(self, text: str) -> None:
        if self._thinking:
            return
        if not self._begun:
            text = text.lstrip()  # the line breaks behind the thoughts
        if text:
            self._begun = True
            self._show(text)
