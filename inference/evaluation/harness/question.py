"""A question with clips between its words, and how it is to be answered."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_pipeline.schema import Message
from data_pipeline.text.template import encode_prompt
from data_pipeline.text.tokenizer import IMAGE, VIDEO, Tokenizer
from inference.evaluation.harness.media import Clip
from inference.sampling import SamplingConfig
from model.errors import InputError

Piece = str | Clip


@dataclass(frozen=True)
class Decoding:
    """How a question is answered."""

    until: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    max_new_tokens: int = 512
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    @classmethod
    def read(cls, given: Mapping[str, Any] | None, *, max_new_tokens: int, seed: int) -> Decoding:
        """From generation arguments in Hugging Face's names; those that the model has no use for are left alone.

        Sampled where a temperature above 0 is given, or do_sample without one; do_sample=False is greedy at any temperature.

        Args:
            max_new_tokens: where they do not say it.
            seed: of sampling.

        Raises:
            InputError: a value out of range, or beams.
        """
        given = given or {}
        beams = given.get("num_beams")
        if beams is not None and beams != 1:
            raise InputError(f"generation argument num_beams is {beams!r}; answers are decoded without beams: set it to 1")
        until = given.get("until")
        ends = (until,) if isinstance(until, str) else tuple(until or ())
        if not all(isinstance(end, str) for end in ends):
            raise InputError(f"generation argument until is {until!r}; it must be a string or a list of strings")
        limit = _number(given, "max_new_tokens", max_new_tokens)
        if limit < 1 or limit != int(limit):
            raise InputError(f"generation argument max_new_tokens is {limit:g}; it must be a whole number of at least 1")
        temperature = _number(given, "temperature", 1.0 if given.get("do_sample") else 0.0)
        if temperature == 0 or given.get("do_sample") is False:
            sampling = SamplingConfig(repetition_penalty=_number(given, "repetition_penalty", 1.0))
        else:
            sampling = SamplingConfig(
                do_sample=True,
                temperature=temperature,
                top_k=int(_number(given, "top_k", 0)),
                top_p=_number(given, "top_p", 1.0),
                repetition_penalty=_number(given, "repetition_penalty", 1.0),
                seed=seed,
            )
        return cls(tuple(end for end in ends if end), int(limit), sampling)

    def cut(self, text: str) -> str:
        """`text` before the first of the strings that end it, without space around it."""
        places = [place for place in (text.find(end) for end in self.until) if place >= 0]
        return text[: min(places, default=len(text))].strip()


def _number(given: Mapping[str, Any], name: str, default: float) -> float:
    value = given.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"generation argument {name} is {value!r}; it must be a number")
    return float(value)


@dataclass(frozen=True)
class Turn:
    """One message: text and clips in the order in which they are read."""

    role: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Question:
    """A conversation that ends with what is asked."""

    turns: tuple[Turn, ...]
    decoding: Decoding = field(default_factory=Decoding)

    @classmethod
    def ask(cls, clips: Sequence[Clip], text: str, decoding: Decoding) -> Question:
        """The clips, then the text, as in training."""
        return cls((Turn("user", (*clips, text)),), decoding)

    @property
    def clips(self) -> list[Clip]:
        """All of its clips, in order."""
        return [piece for turn in self.turns for piece in turn.pieces if isinstance(piece, Clip)]

    @property
    def key(self) -> Hashable:
        """Equal for questions that are answered from the same frames, in the same way."""
        return tuple(clip.key for clip in self.clips), self.decoding


def question_rows(
    question: Question, counts: Sequence[int], tokenizer: Tokenizer, *, system: str = "", template: str = "mllama"
) -> list[int]:
    """Ids up to where the answer begins.

    Args:
        counts: frames of each clip, which become so many image tokens.
        system: the system text where the question has none of its own.

    Raises:
        InputError: a text holds a marker of frames, or roles do not alternate.
    """
    said = ["".join(_text(piece) for piece in turn.pieces) for turn in question.turns]
    if template != "mllama":  # such a model saw no turns: everything is text that it continues
        messages = [Message(role="user", content=""), Message(role="assistant", content="\n".join(said))]
    else:
        messages = [Message(role="system", content=system)] if system else []
        for turn, text in zip(question.turns, said, strict=True):
            if turn.role == "system":
                messages = [message for message in messages if message.role != "system"]
                messages.insert(0, Message(role="system", content=text))
            elif messages and messages[-1].role == turn.role:
                messages[-1] = Message(role=turn.role, content=f"{messages[-1].content}\n{text}")
            else:
                messages.append(Message(role=turn.role, content=text))
    left = iter(counts)
    rows: list[int] = []
    for token in encode_prompt(messages, tokenizer, template):
        rows += [tokenizer.image_id] * next(left) if token == tokenizer.video_id else [token]
    return rows


def _text(piece: Piece) -> str:
    if isinstance(piece, Clip):
        return VIDEO
    for marker in (VIDEO, IMAGE):
        if marker in piece:
            raise InputError(f"a question holds {marker}, which stands for frames; leave it out: {piece[:80]!r}")
    return piece
