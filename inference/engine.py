"""The step engine: tokens and new frames in, logits out, for one session or many at once. No thread, no clock, no text."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from inference.cache.policies.policy import CachePolicy
from inference.cache.session_cache import SessionCache
from inference.cache.store import KVStore
from inference.graphs.ahead import AheadServer, Wish, accepted
from inference.graphs.runner import ROW_BUCKETS, GraphRunner
from inference.model.rows import RowGroup
from inference.model.video_mllama import VideoMllama
from inference.sampling import Sampler, choose_rows
from inference.vision.encoder import FrameEncoder
from model.errors import InputError
from model.kernels.select import choose_form, launching_on

T = TypeVar("T")


@dataclass
class StepRequest:
    """What one session wants to feed next."""

    cache: SessionCache
    tokens: Sequence[int]
    frames: torch.Tensor | None = None
    """uint8 [f, 3, S, S], one for each image token among `tokens`, in their order."""
    features: torch.Tensor | None = None
    """[f, P, H] of frames that are encoded already, instead of `frames`."""
    sampler: Sampler | None = None
    """Chooses the token that follows the last row; None: the session wants the logits themselves."""
    ahead: bool = False
    """The session will most likely feed the chosen token alone next: that step may be launched before the token is read.
    Changes no token, only when they are there."""

    @property
    def new_frames(self) -> int:
        """Frames that come with these rows."""
        given = self.frames if self.features is None else self.features
        return 0 if given is None else len(given)


Stepping = Generator[StepRequest | list[StepRequest], Any, T]
"""A session as a generator: it yields what to feed, is sent the token that its sampler chose (or, without a sampler, fp32
logits [vocab_size] of the last row), and returns its result. It may yield a list of requests of several caches (its forks),
and is then sent the list of their answers."""


class UnchosenError(InputError):
    """No token could be chosen for some sessions of a step: their scores are not finite. The step is done for all of them.

    Attributes:
        answers: of all requests; an `InputError` in the place of a token that could not be chosen.
    """

    def __init__(self, answers: list[Any]) -> None:
        super().__init__(str(next(answer for answer in answers if isinstance(answer, InputError))))
        self.answers = answers


class StepEngine:
    """Feeds one model; every session is a `SessionCache` that the caller keeps. Any thread may call it; steps come one at a time.

    A frame is visible to the row of its image token and to all rows after it. Feeding a sequence in any
    portions gives the logits of feeding it whole, as long as the switches are the correct ones.

    Args:
        model: weights and arithmetic.
        store: the pages that all its sessions share; by default one that grows, on a GPU from 8192 rows and 512
            frames (1.1 and 1.7 GB of an 11B model in bf16).
        graphs: run steps on static buffers, as CUDA graphs where there is CUDA; None: on CUDA with Triton, whose kernels alone
            read tables of pages on the device.

    Raises:
        InputError: graphs on CUDA without Triton.
    """

    def __init__(self, model: VideoMllama, store: KVStore | None = None, *, graphs: bool | None = None) -> None:
        self.model = model
        self.image_id = model.config.image_token_id
        positions, frames = (8192, 512) if model.device.type == "cuda" else (256, 16)
        self.store = store or KVStore(model.config, model.device, model.dtype, positions=positions, frames=frames)
        self._one_step = self.store.lock
        """Held for a step: its buffers and its order on the device are one step's, and pages do not move in its midst."""
        self.server: AheadServer | None = None
        kernels = choose_form(model.device) == "triton"
        if graphs and model.device.type == "cuda" and not kernels:
            raise InputError("graphs=True on a GPU needs the package triton, which is missing; install it or use graphs=False")
        if kernels if graphs is None else graphs:
            self.server = AheadServer(GraphRunner(model, self.store))

    def new_cache(self, *, positions: int = 256, frames: int = 16, policy: CachePolicy | None = None) -> SessionCache:
        """An empty session; `positions` and `frames` say what it may need and bind nobody: pages are taken when they are.

        Args:
            positions: rows that it may need.
            frames: frames that it may need.
            policy: what it forgets as it grows; None: nothing.

        Raises:
            InputError: the policy needs unrotated keys and the store keeps none.
        """
        if policy is None:
            return self.store.new_cache()
        from inference.cache.policies.runner import run_policy

        return self.store.new_cache(run_policy(policy, self.store, self.model))

    def prepare(self, samplers: Sequence[Sampler], rows: Sequence[int] = ROW_BUCKETS) -> None:
        """Capture CUDA graphs before the first step needs them; nothing to do without graphs.

        Steps of more than 64 rows have graphs only from here.

        Args:
            samplers: one for each session that will step at once; they change nothing.
            rows: numbers of rows that will be fed at once, at least as many as there are samplers.
        """
        if self.server is not None:
            with self._one_step, launching_on(self.model.device):
                self.server.runner.prepare(rows, samplers)

    @property
    def encoder(self) -> FrameEncoder:
        """The model's: whole clips, or frames handed in one by one."""
        return self.model.encoder

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Vision features [F, P, H] of uint8 frames [F, 3, S, S]."""
        return self.model.encode(frames)

    def step(
        self,
        cache: SessionCache,
        tokens: Sequence[int],
        frame_states: torch.Tensor | None = None,
        *,
        every_row: bool = False,
    ) -> torch.Tensor:
        """Append tokens and the frames whose image tokens are among them.

        Args:
            cache: the session, changed in place.
            tokens: ids of the new rows, at least one.
            frame_states: [f, P, H] from `encode`, in the order of their image tokens.
            every_row: logits of all rows instead of the last.

        Returns:
            fp32 logits [n, vocab_size], or [1, vocab_size] of the last row.

        Raises:
            InputError: no token, an id outside the vocabulary, or another number of frames than image tokens.
        """
        group = self.group(cache, tokens, frame_states)
        with self._one_step, launching_on(self.model.device):
            if self.server is not None:
                self.server.forget(cache)
            return self.model.run([group], every_row=every_row)

    def serve(self, requests: Sequence[StepRequest]) -> list[Any]:
        """One step of several sessions: all new frames in one call of the tower, all rows in one pass of the decoder.

        Returns:
            For each request the token that its sampler chose or, without a sampler, fp32 logits [vocab_size] of its last row.

        Raises:
            UnchosenError: some sessions have no token that can be chosen; it holds the answers of the others.
            InputError: as `step`; or one session occurs twice.
        """
        with self._one_step, launching_on(self.model.device):
            answers = self._answers(requests)
        if any(isinstance(answer, InputError) for answer in answers):
            raise UnchosenError(answers)
        return answers

    def _answers(self, requests: Sequence[StepRequest]) -> list[Any]:
        """As `serve`, with an `InputError` in the place of a token that could not be chosen."""
        if len({id(request.cache) for request in requests}) != len(requests):
            raise InputError("a session occurs twice in one step; feed it all its tokens in one request")
        groups = [
            self.group(request.cache, request.tokens, states)
            for request, states in zip(requests, self._features(requests), strict=True)
        ]
        samplers = [request.sampler for request in requests if request.sampler is not None]
        if self.server is not None and len(samplers) == len(requests):
            wishes = zip(groups, samplers, (request.ahead for request in requests), strict=True)
            return self.server.serve([Wish(*wish) for wish in wishes])
        if self.server is not None:
            for group in groups:
                self.server.forget(group.cache)
        rows = self.model.run(groups)
        if not samplers:
            return list(rows)
        tokens = choose_rows(rows, [request.sampler for request in requests]).tolist()
        answers = zip(requests, rows, tokens, strict=True)
        return [row if request.sampler is None else accepted(request.sampler, token) for request, row, token in answers]

    def _features(self, requests: Sequence[StepRequest]) -> list[torch.Tensor | None]:
        """Features of each request's frames; all that are not encoded yet go through the tower together."""
        pictures = [request.frames for request in requests if request.frames is not None and request.features is None]
        pictures = [frames for frames in pictures if len(frames)]
        encoded = iter(self.encoder.encode_clips(pictures))
        return [next(encoded) if request.new_frames and request.features is None else request.features for request in requests]

    def drive(self, sessions: Sequence[Stepping[T]]) -> list[T]:
        """Run sessions in lockstep to their ends: in every round each one that still runs is fed once.

        Returns:
            The result of each session, in their order.

        Raises:
            InputError: a request was wrong. One that has no token to choose is raised in its session, which may live on.
        """
        results: dict[int, T] = {}
        waiting: dict[int, StepRequest | list[StepRequest]] = {}

        def advance(number: int, answer: Any) -> None:
            session = sessions[number]
            try:
                waiting[number] = session.throw(answer) if isinstance(answer, InputError) else session.send(answer)
            except StopIteration as stop:
                results[number] = stop.value

        for number in range(len(sessions)):
            advance(number, None)
        while waiting:
            wishes = [(number, waiting.pop(number)) for number in list(waiting)]
            requests = [one for _, wish in wishes for one in (wish if isinstance(wish, list) else [wish])]
            try:
                answers = iter(self.serve(requests))
            except UnchosenError as error:
                answers = iter(error.answers)
            for number, wish in wishes:
                found = [next(answers) for _ in wish] if isinstance(wish, list) else [next(answers)]
                # A session of several forks cannot go on without one of them.
                wrong = next((answer for answer in found if isinstance(answer, InputError)), None)
                advance(number, wrong or (found if isinstance(wish, list) else found[0]))
        return [results[number] for number in range(len(sessions))]

    def group(self, cache: SessionCache, tokens: Sequence[int], frame_states: torch.Tensor | None) -> RowGroup:
        """Check a step and count what its rows see."""
        if not tokens:
            raise InputError("a step has no tokens; feed at least one")
        positions, visible = [], []
        seen = cache.frames
        for row, token in enumerate(tokens):
            if not 0 <= token <= self.image_id:
                raise InputError(
                    f"token id {token} is outside the vocabulary of {self.image_id + 1}; use the checkpoint's own tokenizer"
                )
            if token == self.image_id:
                positions.append(cache.next_position + row)
                seen += 1
            visible.append(seen)
        given = 0 if frame_states is None else frame_states.shape[0]
        if given != len(positions):
            raise InputError(f"a step has {len(positions)} image tokens and {given} frames; give one frame per image token")
        return RowGroup(cache, tokens, visible, frame_states, positions)
