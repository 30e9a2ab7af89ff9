"""Requests of lmms-eval to questions. Knows their form, and imports nothing of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from inference.evaluation.harness.media import Clip, clip_of
from inference.evaluation.harness.question import Decoding, Piece, Question, Turn
from inference.evaluation.harness.settings import HarnessSettings
from model.errors import InputError

MAX_ROUNDS = 1000
"""A task that still asks then will never end."""

Advance = Callable[[int, list[str], Any], tuple[Question | None, list[str], Any]]
"""(round, answers so far, what the task wants back) -> (the next question or None at the end, answers, what it wants back)."""


def clips_of(visuals: Any) -> list[Clip]:
    """Clips of what `doc_to_visual` returned: None, one visual, or a list; a list of pictures inside of it is one clip.

    Raises:
        InputError: something that is neither picture nor video.
    """
    if visuals is None:
        return []
    if not isinstance(visuals, list | tuple):
        return [clip_of(visuals)]
    found: list[Clip] = []
    for visual in visuals:
        if isinstance(visual, list | tuple) and not all(isinstance(v, Image.Image | np.ndarray | torch.Tensor) for v in visual):
            found += clips_of(visual)
        elif visual is not None:
            found.append(clip_of(visual))
    return found


def turns_of(messages: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...]:
    """Turns of chat messages whose content is text, or a list of parts of type text, image, video.

    Raises:
        InputError: an unknown part, sound, or no message.
    """
    if not messages:
        raise InputError("a task gives a question without messages; look at its doc_to_messages")
    turns = []
    for message in messages:
        content = message["content"]
        pieces: list[Piece] = []
        for part in [content] if isinstance(content, str) else content:
            pieces.append(part if isinstance(part, str) else _piece(part))
        turns.append(Turn(str(message["role"]), tuple(pieces)))
    return tuple(turns)


def _piece(part: Mapping[str, Any]) -> Piece:
    kind = part.get("type")
    if kind == "text":
        return str(part["text"])
    if kind not in ("image", "video", "audio"):
        raise InputError(f"a message has a part of type {kind!r}; use text, image, video")
    return clip_of(part)


class Decodings:
    """How requests are decoded; a document that is asked again, for the spread of sampled answers, gets another seed."""

    def __init__(self, settings: HarnessSettings) -> None:
        self._settings = settings
        self._asked: Counter[tuple[Any, ...]] = Counter()

    def of(self, arguments: Mapping[str, Any] | None, *document: Any) -> Decoding:
        """From the request's generation arguments.

        Args:
            document: task, split and number of the document.

        Raises:
            InputError: a generation argument out of range.
        """
        seed = self._settings.seed + self._asked[document]
        self._asked[document] += 1
        return Decoding.read(arguments, max_new_tokens=self._settings.max_new_tokens, seed=seed)


def simple_rounds(first: Callable[[], Question], doc_to_text: Callable[..., Any], doc: Any, decoding: Decoding) -> Advance:
    """Rounds of a simple task: `doc_to_text` is asked for every round but the first.

    It returns (visuals, text, whether it is over, the answers as they now are, what it wants back); anything else ends it.
    """

    def advance(number: int, answers: list[str], info: Any) -> tuple[Question | None, list[str], Any]:
        if number == 0:
            return first(), answers, info
        found = doc_to_text(doc, previous_output=list(answers), round_idx=number, previous_round_info=info)
        if not (isinstance(found, tuple) and len(found) == 5):
            return None, answers, info
        visuals, text, over, kept, info = found
        answers = answers if kept is None else list(kept)
        return None if over else Question.ask(clips_of(visuals), text, decoding), answers, info

    return advance


def chat_rounds(doc_to_messages: Callable[..., Any], doc: Any, decoding: Decoding) -> Advance:
    """Rounds of a chat task: `doc_to_messages(doc)` first, then with the round's number, the answers and what it wants back.

    It then returns (messages, whether it is over, the answers as they now are, what it wants back); anything else ends it.
    """

    def advance(number: int, answers: list[str], info: Any) -> tuple[Question | None, list[str], Any]:
        if number == 0:
            return Question(turns_of(doc_to_messages(doc)), decoding), answers, info
        found = doc_to_messages(doc, round_idx=number, previous_output=list(answers), previous_round_info=info)
        if not (isinstance(found, tuple) and len(found) == 4):
            return None, answers, info
        messages, over, kept, info = found
        answers = answers if kept is None else list(kept)
        return None if over else Question(turns_of(messages), decoding), answers, info

    return advance


def play_rounds(conversations: Sequence[Advance], answer: Callable[[Sequence[Question]], Sequence[str]]) -> list[list[str]]:
    """Plays conversations to their ends, the same round of all of them together.

    Args:
        conversations: how each goes on.
        answer: answers to questions of one round, in their order.

    Returns:
        The answers of each, as its task returned them at the end.

    Raises:
        InputError: a conversation does not end.
    """
    answers: list[list[str]] = [[] for _ in conversations]
    infos: list[Any] = [None] * len(conversations)
    live = list(range(len(conversations)))
    for number in range(MAX_ROUNDS):
        asked: list[tuple[int, Question]] = []
        for place in live:
            question, answers[place], infos[place] = conversations[place](number, answers[place], infos[place])
            if question is not None:
                asked.append((place, question))
        if not asked:
            return answers
        for (place, _), text in zip(asked, answer([question for _, question in asked]), strict=True):
            answers[place].append(text)
        live = [place for place, _ in asked]
    raise InputError(f"a task asks more than {MAX_ROUNDS} rounds; its doc_to_text must say when it is over")
