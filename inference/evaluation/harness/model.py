"""A checkpoint that answers questions in any order, and encodes what several of them show once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from inference.commands import load_engine, system_text
from inference.evaluation.harness.media import Sampling
from inference.evaluation.harness.question import Question, question_rows
from inference.evaluation.harness.settings import HarnessSettings
from inference.offline import Answerer
from model.errors import InputError

Make = Callable[[], Question]
"""Makes a question when it is needed, so that pictures of thousands of questions never lie in memory together."""


@dataclass(frozen=True)
class Answer:
    """What was said, and how many rows it took."""

    text: str
    input_tokens: int
    """Rows of the prompt, one for each frame among them."""
    output_tokens: int


class HarnessModel:
    """Answers and likelihoods of one checkpoint.

    Args:
        settings: where it lies, and how clips are sampled.

    Raises:
        InputError: the checkpoint cannot be loaded, or a setting does not fit it.
    """

    def __init__(self, settings: HarnessSettings) -> None:
        self.settings = settings
        self.engine, self.tokenizer = load_engine(settings.arguments())
        details: dict[str, Any] = self.engine.model.details
        own = details.get("frames") or {}
        most = settings.max_frames or own.get("max_frames", 16)
        self.sampling = Sampling(
            size=self.engine.model.config.vision.image_size,
            fps=settings.fps or own.get("fps", 1.0),
            min_frames=settings.min_frames or min(own.get("min_frames", 8), most),
            max_frames=most,
        )
        self._template = details.get("template") or "mllama"
        self._system = system_text(settings.system_given(), details, "none")

    def answer(self, makers: Sequence[Make], done: Callable[[int, Answer], None] | None = None) -> list[Answer]:
        """Answers in the order of the questions.

        Questions that show the same clips and are decoded alike go on in forks of one stream, wherever they stand among the
        others. Each question is made twice, the first time for its key alone.

        Args:
            makers: one for each question.
            done: called with a question's number and its answer as it is there.

        Raises:
            InputError: a clip cannot be read, or a question is too long for the model; not where the settings ask for empty
                answers to such questions.
        """
        groups: dict[Hashable, list[int]] = {}
        found: dict[int, Answer] = {}

        def keep(number: int, answer: Answer) -> None:
            found[number] = answer
            if done is not None:
                done(number, answer)

        for number, make in enumerate(makers):
            try:
                groups.setdefault(make().key, []).append(number)
            except InputError as error:
                keep(number, self._nothing(error))
        together = list(groups.values())
        for begin in range(0, len(together), self.settings.batch):
            part = together[begin : begin + self.settings.batch]
            for numbers, answers in zip(part, self._tried(part, makers), strict=True):
                for number, answer in zip(numbers, answers, strict=True):
                    keep(number, answer)
        return [found[number] for number in range(len(makers))]

    def _tried(self, part: Sequence[list[int]], makers: Sequence[Make]) -> list[list[Answer]]:
        """As `_answer_groups`; where something is wrong with one of the groups the others are answered all the same."""
        try:
            return self._answer_groups(part, makers)
        except InputError as error:
            if len(part) > 1:
                return [self._tried([numbers], makers)[0] for numbers in part]
            if len(part[0]) > 1:
                return [[self._tried([[number]], makers)[0][0] for number in part[0]]]
            return [[self._nothing(error)]]

    def _nothing(self, error: InputError) -> Answer:
        """What stands for the answer to a question that cannot be asked.

        Raises:
            InputError: the same, unless the settings ask for empty answers.
        """
        if self.settings.broken == "raise":
            raise error
        print(f"warning: a question gets an empty answer: {error}", file=sys.stderr, flush=True)
        return Answer("", 0, 0)

    def _answer_groups(self, part: Sequence[list[int]], makers: Sequence[Make]) -> list[list[Answer]]:
        """Answers of some groups, in lockstep."""
        steppings, prepared = [], []
        for numbers in part:
            questions = [makers[number]() for number in numbers]
            frames, counts = self._frames(questions[0])
            rows = [self.rows(question, counts) for question in questions]
            decoding = questions[0].decoding
            limit = min(decoding.max_new_tokens, self._positions - max(map(len, rows)))
            chunk = self.settings.chunk
            answerer = Answerer(self.engine, self.tokenizer, sampling=decoding.sampling, max_new_tokens=limit, chunk=chunk)
            steppings.append(answerer.stepping(rows, frames))
            prepared.append((rows, decoding))
        replies = self.engine.drive(steppings)
        return [
            [
                Answer(decoding.cut(self.tokenizer.decode(reply, skip_special=True)), len(prompt), len(reply))
                for prompt, reply in zip(rows, group, strict=True)
            ]
            for (rows, decoding), group in zip(prepared, replies, strict=True)
        ]

    def likelihoods(self, makers: Sequence[Make], continuations: Sequence[str]) -> list[tuple[float, bool]]:
        """How likely each answer is: the sum of the log-probabilities of its tokens, and whether greedy decoding says it.

        The answer begins where a reply does, so space before it is left out; the token that closes a reply is not counted.
        Answers to the same question share its frames and its rows.

        Args:
            makers: one question for each answer.
            continuations: the answers.

        Raises:
            InputError: as `answer`, or an answer without tokens.
        """
        groups: dict[Hashable, list[int]] = {}
        for number, make in enumerate(makers):
            question = make()
            groups.setdefault((question.key, _said(question)), []).append(number)
        found: dict[int, tuple[float, bool]] = {}
        for numbers in groups.values():
            question = makers[numbers[0]]()
            frames, counts = self._frames(question)
            rows = self.rows(question, counts)
            answers = [self._ids(continuations[number]) for number in numbers]
            if len(rows) + max(map(len, answers)) > self._positions:
                raise self._too_long(len(rows))
            found |= dict(zip(numbers, self._score(rows, frames, answers), strict=True))
        return [found[number] for number in range(len(makers))]

    def _score(
        self, rows: Sequence[int], frames: torch.Tensor | None, answers: Sequence[Sequence[int]]
    ) -> list[tuple[float, bool]]:
        """Of several answers to one prompt, each in a fork of it."""
        tokenizer = self.tokenizer
        never = [tokenizer.ellipsis_id, tokenizer.video_id, tokenizer.image_id]
        cache = self.engine.new_cache()
        features = None
        if frames is not None:
            features = torch.cat([self.engine.encode(part) for part in frames.split(self.settings.chunk)])
        first = self.engine.step(cache, rows, features)
        found = []
        for ids in answers:
            fork = cache.fork()
            logits = first if len(ids) == 1 else torch.cat([first, self.engine.step(fork, ids[:-1], every_row=True)])
            fork.release()
            wanted = torch.tensor(ids, device=logits.device)[:, None]
            chosen = logits.log_softmax(-1).gather(1, wanted).double().sum()
            sayable = logits.clone()
            sayable[:, [token for token in never if token < logits.shape[1]]] = float("-inf")
            found.append((float(chosen), bool((sayable.argmax(-1) == wanted[:, 0]).all())))
        cache.release()
        return found

    def rows(self, question: Question, counts: Sequence[int]) -> list[int]:
        """Ids of a question whose clips have `counts` frames.

        Raises:
            InputError: the model has no room for it and one token of an answer.
        """
        rows = question_rows(question, counts, self.tokenizer, system=self._system, template=self._template)
        if len(rows) >= self._positions:
            raise self._too_long(len(rows))
        return rows

    @property
    def _positions(self) -> int:
        return int(self.engine.model.config.text.max_position_embeddings)

    def _too_long(self, rows: int) -> InputError:
        return InputError(
            f"a question has {rows} rows, the model {self._positions} positions with those of the answer; lower max_frames or fps"
        )

    def _frames(self, question: Question) -> tuple[torch.Tensor | None, list[int]]:
        """uint8 [F, 3, S, S] of all clips, None where there are none, and the frames of each."""
        clips = [clip.read(self.sampling) for clip in question.clips]
        return torch.cat(clips) if clips else None, [len(clip) for clip in clips]

    def _ids(self, continuation: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(continuation.strip() if self._template == "mllama" else continuation)
        if not ids:
            raise InputError("the likelihood of an empty answer is asked for; give at least one character that is no space")
        return ids


def _said(question: Question) -> Hashable:
    """Its words, with places for its clips."""
    return tuple(
        (turn.role, tuple(piece if isinstance(piece, str) else None for piece in turn.pieces)) for turn in question.turns
    )
