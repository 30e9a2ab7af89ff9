"""Answering questions about frames that are all there: prompt, cached decoding, one encoding for many questions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from data_pipeline.schema import Message
from data_pipeline.text.template import encode_prompt
from data_pipeline.text.tokenizer import IMAGE, VIDEO, Tokenizer
from inference.cache.session_cache import SessionCache
from inference.engine import StepEngine, Stepping, StepRequest
from inference.sampling import Sampler, SamplingConfig
from inference.serving.forks import together
from inference.text_stream import TextStream
from model.errors import InputError

MAX_FORKS = 64
"""Prompts that are answered in one step."""


def question_rows(
    question: str,
    num_frames: int,
    tokenizer: Tokenizer,
    *,
    system: str = "",
    template: str = "mllama",
    separator: str = "",
) -> list[int]:
    """Ids of a question about a video, in the form of training: the video stands before the question.

    Args:
        num_frames: the video's marker becomes so many image tokens; 0 leaves it out.
        separator: text between the video and the question.

    Raises:
        InputError: the question contains a marker of frames.
    """
    for marker in (VIDEO, IMAGE):
        if marker in question:
            raise InputError(f"the question {question!r} contains {marker}, which stands for frames; leave it out")
    content = f"{VIDEO}{separator}{question}" if num_frames else question
    role = "user" if template == "mllama" else "assistant"
    messages = [Message(role="system", content=system)] if system and template == "mllama" else []
    if role == "assistant":
        messages.append(Message(role="user", content=""))
    rows: list[int] = []
    for token in encode_prompt([*messages, Message(role=role, content=content)], tokenizer, template):
        rows += [tokenizer.image_id] * num_frames if token == tokenizer.video_id and num_frames else [token]
    return rows


class Answerer:
    """Decodes replies with one model.

    Args:
        engine: the step engine.
        tokenizer: the checkpoint's own.
        sampling: how tokens are chosen; greedy by default.
        max_new_tokens: a reply is cut there.
        chunk: frames encoded at a time, which bounds memory; None: as the engine does it.
    """

    def __init__(
        self,
        engine: StepEngine,
        tokenizer: Tokenizer,
        *,
        sampling: SamplingConfig | None = None,
        max_new_tokens: int = 512,
        chunk: int | None = None,
    ) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self._chunk = chunk
        self.sampling = sampling or SamplingConfig()
        self.max_new_tokens = max_new_tokens
        self._stop = {tokenizer.eot_id, tokenizer.eom_id, tokenizer.eos_text_id}
        self._banned = {tokenizer.ellipsis_id, tokenizer.video_id, tokenizer.image_id}

    def reply(self, rows: Sequence[int], frames: torch.Tensor | None, on_text: Callable[[str], None] | None = None) -> list[int]:
        """The ids of one reply, its closing token left out.

        Args:
            rows: the prompt, one image token per frame.
            frames: uint8 [F, 3, S, S], or None for a prompt without frames.
            on_text: called with every piece of text as it becomes complete.
        """
        return self.engine.drive([self.stepping([rows], frames, on_text)])[0][0]

    def replies(self, prompts: Sequence[Sequence[int]], frames: torch.Tensor | None) -> list[list[int]]:
        """Replies to several prompts about the same frames."""
        return self.engine.drive([self.stepping(prompts, frames)])[0]

    def stepping(
        self, prompts: Sequence[Sequence[int]], frames: torch.Tensor | None, on_text: Callable[[str], None] | None = None
    ) -> Stepping[list[list[int]]]:
        """`replies` as a generator, for answering about several clips in lockstep with `StepEngine.drive`.

        What the prompts begin with in common is computed once, where it holds all the frames; each prompt then goes on
        in a fork that shares its pages, all of them in one step.
        """
        count = 0 if frames is None else len(frames)
        shared = _common_prefix(prompts) if len(prompts) > 1 else 0
        if list(prompts[0][:shared]).count(self.tokenizer.image_id) != count:
            shared = 0
        if not shared:
            wanted = frames is not None and count and (len(prompts) > 1 or self._chunk is not None)
            features = self._encode(frames) if wanted and frames is not None else None
            caches = [self.engine.new_cache(positions=len(rows) + 64, frames=max(1, count)) for rows in prompts]
        else:
            first = self.engine.new_cache(positions=max(map(len, prompts)) + 64, frames=max(1, count))
            features = None if frames is None or not count else self._encode(frames)
            yield StepRequest(first, prompts[0][:shared], features=features)
            frames, features = None, None
            caches = [first, *(first.fork() for _ in prompts[1:])]
        found: list[list[int]] = []
        for begin in range(0, len(prompts), MAX_FORKS):
            part = list(zip(prompts, caches, strict=True))[begin : begin + MAX_FORKS]
            found += yield from together([self.decode(cache, rows, shared, frames, features, on_text) for rows, cache in part])
        return found

    def _encode(self, frames: torch.Tensor) -> torch.Tensor:
        """[F, P, H], chunk by chunk."""
        parts = frames.split(self._chunk or len(frames))
        return torch.cat([self.engine.encode(part) for part in parts])

    def decode(
        self,
        cache: SessionCache,
        prompt: Sequence[int],
        done: int = 0,
        frames: torch.Tensor | None = None,
        features: torch.Tensor | None = None,
        on_text: Callable[[str], None] | None = None,
    ) -> Stepping[list[int]]:
        """Feed the rows of `prompt` behind the first `done`, then one token after the other; gives the pages back at the end.

        Args:
            cache: holds the first `done` rows, with their frames.
            prompt: all rows.
            done: how many of them are fed.
            frames: uint8 [f, 3, S, S] of the image tokens among the others.
            features: [f, P, H] instead of `frames`.
            on_text: called with every piece of text as it becomes complete.
        """
        sampler = Sampler(self.sampling, banned=self._banned, silence_id=self.tokenizer.silence_id)
        sampler.remember(prompt)
        text = TextStream(self.tokenizer)
        reply: list[int] = []
        pictures = None if features is not None else frames
        more = self.max_new_tokens > 1
        token = yield StepRequest(cache, prompt[done:], pictures, features, sampler=sampler, ahead=more)
        while len(reply) < self.max_new_tokens:
            if token in self._stop:
                break
            reply.append(token)
            if on_text is not None and (piece := text.push(token)):
                on_text(piece)
            if len(reply) < self.max_new_tokens:
                more = len(reply) + 1 < self.max_new_tokens
                token = yield StepRequest(cache, [token], sampler=sampler, ahead=more)
        if on_text is not None and (rest := text.flush()):
            on_text(rest)
        cache.release()
        return reply


def _common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Rows that all prompts share, leaving at least one row of its own to each."""
    length = min((len(rows) for rows in prompts), default=1) - 1
    for i in range(length):
        if any(rows[i] != prompts[0][i] for rows in prompts):
            return i
    return max(0, length)
