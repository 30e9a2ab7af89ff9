"""The real-time session: watches frames, hears prompts, and speaks or stays silent token by token.

One loop, no thread. On a virtual clock a run is a function of its arrivals alone, and nothing that arrives at
time t or later can change a token emitted before t.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from data_pipeline.schema import Message
from data_pipeline.text.template import encode_interruption, encode_prompt
from data_pipeline.text.tokenizer import Tokenizer
from inference.arrivals import Arrival, Inbox
from inference.clock import Clock, VirtualClock
from inference.engine import StepEngine, Stepping, StepRequest
from inference.evaluation.schema import TraceEvent
from inference.frame_ledger import FrameLedger
from inference.sampling import Sampler, SamplingConfig
from inference.text_stream import TextStream
from model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SessionSettings:
    """Limits and manners of a session."""

    system: str = ""
    """System text of the first turn; '' for none."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    tokens_per_second: float | None = None
    """At most so many tokens a second; None: as fast as the model goes (wall clock only)."""
    max_new_tokens: int = 86400
    idle_timeout: float = 5.0
    """Seconds of silence without arrivals after which a session whose arrivals are over ends."""
    max_frames: int = 65536
    """Frames that the session remembers; later ones are rejected."""
    max_pending_frames: int = 256
    """Frames that may wait for one token boundary; older ones are dropped."""

    def __post_init__(self) -> None:
        if self.tokens_per_second is not None and not 0 < self.tokens_per_second < math.inf:
            raise InputError(f"tokens_per_second is {self.tokens_per_second}; it must be above 0 and finite")
        for name in ("max_new_tokens", "max_frames", "max_pending_frames"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.idle_timeout < math.inf:
            raise InputError(f"idle_timeout is {self.idle_timeout}; it must be 0 or more and finite")


@dataclass
class _Drained:
    """What was taken from the inbox at one token boundary."""

    prompts: list[str] = field(default_factory=list)
    frames: list[tuple[int, torch.Tensor]] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.prompts or self.frames)


class RealtimeSession:
    """One stream through one model.

    Args:
        engine: the step engine of a real-time checkpoint.
        tokenizer: the checkpoint's own.
        inbox: where frames and prompts come from.
        clock: virtual or wall.
        settings: limits and manners.
        on_event: called with every event as it happens.

    Attributes:
        events: everything that happened, in the order in which it was dealt with.
        ledger: what became of the frames.
        end_reason: idle | until | max_new_tokens | position_limit, once `run` returned.
    """

    def __init__(
        self,
        engine: StepEngine,
        tokenizer: Tokenizer,
        inbox: Inbox,
        clock: Clock,
        settings: SessionSettings | None = None,
        on_event: Callable[[TraceEvent], None] | None = None,
    ) -> None:
        self.engine, self.tokenizer, self.inbox, self.clock = engine, tokenizer, inbox, clock
        self.settings = settings or SessionSettings()
        if isinstance(clock, VirtualClock) and self.settings.tokens_per_second is None:
            raise InputError("a session on a virtual clock needs tokens_per_second: without it speaking would take no time")
        self.events: list[TraceEvent] = []
        self.ledger = FrameLedger()
        self.end_reason = ""
        self._on_event = on_event
        self._cache = engine.new_cache(positions=1024, frames=64)
        self._text = TextStream(tokenizer)
        self._closing = {tokenizer.eot_id, tokenizer.eom_id, tokenizer.eos_text_id}
        banned = {tokenizer.ellipsis_id, tokenizer.video_id, tokenizer.image_id, tokenizer.bos_id, tokenizer.pad_id}
        banned |= {tokenizer.start_header_id, tokenizer.end_header_id}
        self._sampler = Sampler(self.settings.sampling, banned=banned, silence_id=tokenizer.silence_id)
        self._newest_frame: int | None = None
        self._last_arrival = 0.0
        self._speaking = False

    def run(self, until: float | None = None) -> str:
        """Run to the end of the stream, or until stream time `until`; only tokens before it are emitted.

        Returns:
            The reason of the end, also in `end_reason`.
        """
        return self.engine.drive([self.stepping(until)])[0]

    def stepping(self, until: float | None = None) -> Stepping[str]:
        """`run` as a generator, for running several sessions in lockstep with `StepEngine.drive`."""
        opening: list[Message] = [Message(role="system", content=self.settings.system)] if self.settings.system else []
        rows = encode_prompt([*opening, Message(role="user", content="")], self.tokenizer)
        self._emit("turn_start")
        drained = _Drained()
        emitted = 0
        while True:
            frames = torch.stack([frame for _, frame in drained.frames]) if drained.frames else None
            token = yield StepRequest(self._cache, rows, frames, sampler=self._sampler)
            self._settle(drained)
            if self._is_over(until):
                return self._end("until", until)
            token = self._next_token(token)
            emitted += 1
            if emitted >= self.settings.max_new_tokens:
                return self._end("max_new_tokens", until)
            reason, drained = self._next_arrivals(token, until)
            if reason:
                return self._end(reason, until)
            rows = [token, *self._splice(drained)]
            if self._cache.length + len(rows) > self.engine.model.config.text.max_position_embeddings:
                self._discard(drained)
                return self._end("position_limit", until)

    def _settle(self, drained: _Drained) -> None:
        """The model has taken these frames."""
        for number, _ in drained.frames:
            self.ledger.process()
            self._newest_frame = number
            self._emit("frame_done", frame=number)

    def _next_token(self, token: int) -> int:
        if token in self._closing:
            # Real-time turns are closed by the next prompt: a model that wants to close one has nothing to say.
            token = self.tokenizer.silence_id
        self._say(token)
        return token

    def _say(self, token: int) -> None:
        silent = token == self.tokenizer.silence_id
        if silent:
            rest = self._text.flush()
            text = self.tokenizer.decode([token])
            if rest:
                self._emit("token", frame=self._newest_frame, text=rest)
        else:
            text = self._text.push(token)
        self._speaking = not silent
        self._emit("silence" if silent else "token", frame=self._newest_frame, token=token, text=text)

    def _next_arrivals(self, token: int, until: float | None) -> tuple[str, _Drained]:
        """Keep the pace, then take what has arrived; after silence, wait for something.

        Returns:
            (reason to end or '', what was taken).
        """
        if self.settings.tokens_per_second is not None:
            pace = self.clock.now() + 1 / self.settings.tokens_per_second
            pace = pace if until is None else min(pace, until)
            while self.clock.now() < pace:
                self.inbox.wake.clear()
                self.clock.wait_until(pace, self.inbox.wake)
        if self._is_over(until):
            return "until", _Drained()
        drained = self._drain()
        silent_since = self.clock.now()
        while token == self.tokenizer.silence_id and not drained:
            give_up = silent_since + self.settings.idle_timeout
            scheduled = self.inbox.next_time()
            if scheduled is None and until is None and self.clock.now() >= give_up:
                return "idle", drained
            goal = scheduled if scheduled is not None else (until if until is not None else give_up)
            self.clock.wait_until(goal if until is None else min(goal, until), self.inbox.wake)
            if self._is_over(until):
                return "until", drained
            drained = self._drain()
        return "", drained

    def _drain(self) -> _Drained:
        drained = _Drained()
        waiting: deque[tuple[int, torch.Tensor]] = deque()
        for arrival in self.inbox.due(self.clock.now()):
            if arrival.prompt is not None:
                self._emit("prompt", t=arrival.t, text=arrival.prompt)
                drained.prompts.append(arrival.prompt)
            elif arrival.frame is not None:
                self._admit(arrival, arrival.frame, waiting)
        drained.frames = list(waiting)
        return drained

    def _admit(self, arrival: Arrival, frame: torch.Tensor, waiting: deque[tuple[int, torch.Tensor]]) -> None:
        """Take a frame, or say why not."""
        number = self.ledger.submit()
        self._emit("frame_in", t=arrival.t, frame=number)
        vision = self.engine.model.config.vision
        reason = ""
        if tuple(frame.shape) != (vision.num_channels, vision.image_size, vision.image_size):
            reason = "shape"
        elif arrival.t < self._last_arrival:
            reason = "time"
        elif self._cache.frames + len(waiting) >= self.settings.max_frames:
            reason = "capacity"
        if reason:
            self.ledger.reject(reason)
            self._emit("frame_rejected", frame=number, reason=reason)
            return
        self._last_arrival = arrival.t
        waiting.append((number, frame))
        if len(waiting) > self.settings.max_pending_frames:
            oldest, _ = waiting.popleft()
            self.ledger.drop("backlog")
            self._emit("frame_dropped", frame=oldest, reason="backlog")

    def _splice(self, drained: _Drained) -> list[int]:
        """The ids that follow the sampled token: prompts, a silence where frames come with them, one image token a frame."""
        rows: list[int] = []
        for prompt in drained.prompts:
            if self._speaking:
                self._emit("turn_interrupted", frame=self._newest_frame)
            self._speaking = False
            self._text.flush()
            self._emit("turn_start", text=prompt)
            # A marker of a frame in what the user says has no frame: it is left out, the session goes on.
            markers = (self.tokenizer.image_id, self.tokenizer.video_id)
            rows += [token for token in encode_interruption(prompt, self.tokenizer) if token not in markers]
        if drained.prompts and drained.frames:
            # In training a turn's first frame follows a silence.
            rows.append(self.tokenizer.silence_id)
            self._emit("silence", frame=self._newest_frame, token=rows[-1], text=self.tokenizer.decode(rows[-1:]))
        return rows + [self.tokenizer.image_id] * len(drained.frames)

    def _is_over(self, until: float | None) -> bool:
        return until is not None and self.clock.now() >= until

    def _end(self, reason: str, until: float | None) -> str:
        """Settle the frames that arrived but were not taken, and stop."""
        now = self.clock.now() if until is None else min(self.clock.now(), until)
        for arrival in self.inbox.due(now):
            if arrival.frame is not None:
                number = self.ledger.submit()
                self._emit("frame_in", t=arrival.t, frame=number)
                self._discard(_Drained(frames=[(number, arrival.frame)]))
        rest = self._text.flush()
        if rest:
            self._emit("token", frame=self._newest_frame, text=rest)
        self.end_reason = reason
        self._emit("end", reason=reason)
        return reason

    def _discard(self, drained: _Drained) -> None:
        for number, _ in drained.frames:
            self.ledger.drop("stream_end")
            self._emit("frame_dropped", frame=number, reason="stream_end")

    def _emit(self, kind: str, *, t: float | None = None, **fields: int | str | None) -> None:
        event = TraceEvent(t=self.clock.now() if t is None else t, kind=kind)
        event = dataclasses.replace(event, **fields)  # type: ignore[arg-type]
        self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)
