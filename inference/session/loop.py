"""The real-time session: watches frames, hears prompts, and speaks or stays silent token by token.

One loop, no thread. On a virtual clock a run is a function of its arrivals alone, and nothing that arrives at
time t or later can change a token emitted before t.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from data_pipeline.schema import Message
from data_pipeline.text.template import encode_prompt
from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine, Stepping, StepRequest
from inference.evaluation.schema import TraceEvent
from inference.sampling import Sampler
from inference.session.arrivals import Arrival
from inference.session.clock import Clock, VirtualClock
from inference.session.costs import SimulatedEncoder, SimulatedTicket, StepSize
from inference.session.events import EventLog
from inference.session.frame_queue import PendingFrame
from inference.session.inbox import Drained, Inbox, Submit
from inference.session.ledger import FrameLedger
from inference.session.pacing import Pacer
from inference.session.queue_policies import make_policy
from inference.session.settings import SessionSettings
from inference.session.turns import TurnTaker
from model.errors import InputError

PAUSED = "paused"


@dataclass
class Progress:
    """Where a session stands between two tokens."""

    token: int | None = None
    """The last one that was sampled; None before the first of a conversation."""
    rows: list[int] = field(default_factory=list)
    """Of the step that is due."""
    frames: list[PendingFrame] = field(default_factory=list)
    """Fed with `rows`."""
    prompts: list[Arrival] = field(default_factory=list)
    """Heard, not fed yet."""
    prompts_fed: int = 0
    """Among `rows`."""
    device_busy_until: float = 0.0
    """Of a simulated device that has launched a step ahead: stream time of its end."""
    launched_at: float | None = None
    """Stream time at which it began with that step; None: there is none."""
    carried: Drained = field(default_factory=Drained)
    """What came with a reset, to be taken at the next token boundary."""
    silent_since: float | None = None
    """Stream time of the token boundary that was reached behind `token`; None: not reached yet."""
    step: int = 0
    """Number of the next step."""
    emitted: int = 0
    """Tokens sampled so far."""


@dataclass(frozen=True)
class Waiting:
    """A cooperative session has nothing to compute before stream time `until`, or before `wake` is set; send it None then."""

    until: float
    wake: threading.Event


class RealtimeSession:
    """One stream through one model.

    Args:
        engine: the step engine of a real-time checkpoint.
        tokenizer: the checkpoint's own.
        inbox: where frames, prompts and controls come from.
        clock: virtual or wall.
        settings: limits and manners.
        on_event: called with every event as it happens, on the session's thread.

    Attributes:
        cache: what the model has seen.
        progress: where the session stands.
        end_reason: idle | until | max_new_tokens | position_limit, or what `inbox.end` said, once `run` returned;
            `paused` where it stopped to go on later.
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
        costs = clock.costs if isinstance(clock, VirtualClock) else None
        if isinstance(clock, VirtualClock) and costs is None and not self.settings.paced:
            raise InputError("a session on a virtual clock needs tokens_per_second: without it speaking would take no time")
        self._costs = costs
        self._takes_time = costs is not None or clock.wall() is not None
        self._encoder: SimulatedEncoder | None = None
        self.end_reason = ""
        self.log = EventLog(clock, on_event, self.settings.keep_events)
        self.turns = TurnTaker(tokenizer, self.log)
        self.pacer = Pacer(clock, self.settings)
        self.progress = Progress()
        self._begin: float | None = None
        self._pausing = False
        self._forget()
        self._listen()
        if clock.wall() is not None:
            engine.prepare([self.sampler])  # no graph is captured while a person waits

    @property
    def events(self) -> list[TraceEvent]:
        """Everything that happened, in the order in which it was dealt with; empty where the settings keep none."""
        return self.log.events

    @property
    def ledger(self) -> FrameLedger:
        """What became of the frames."""
        return self.inbox.queue.ledger

    def run(self, until: float | None = None, *, pause_at: float | None = None) -> str:
        """Run to the end of the stream, or until stream time `until`; only tokens before it are emitted.

        Args:
            pause_at: stop at the first token boundary at or after this stream time, with everything kept; `run` goes on.

        Returns:
            The reason of the end, also in `end_reason`.
        """
        return self.engine.drive([self.stepping(until, pause_at=pause_at)])[0]

    def pause(self) -> None:
        """Make `run` return `paused` at the next token boundary, with everything kept; from any thread."""
        self._pausing = True
        self.inbox.wake.set()

    def save_state(self, path: str | Path) -> None:
        """Write everything that a session needs to go on elsewhere; only while it is paused. See `restore`.

        Raises:
            InputError: the session is not paused.
        """
        from inference.session.state import save_session

        save_session(self, Path(path))

    @classmethod
    def restore(
        cls,
        path: str | Path,
        engine: StepEngine,
        tokenizer: Tokenizer,
        inbox: Inbox,
        clock: Callable[[float], Clock],
        on_event: Callable[[TraceEvent], None] | None = None,
    ) -> RealtimeSession:
        """The session that was saved; its `run` says the same tokens as if it had never stopped.

        Args:
            path: what `save_state` wrote.
            inbox: a new one; a schedule starts over from its beginning, what the saved session had of it is passed over.
            clock: makes a clock that stands at the given second: `VirtualClock`, `WallClock`.

        Raises:
            InputError: the file is missing, damaged, or of another model.
        """
        from inference.session.state import restore_session

        return restore_session(Path(path), engine, tokenizer, inbox, clock, on_event)

    def stepping(self, until: float | None = None, *, pause_at: float | None = None) -> Stepping[str]:
        """`run` as a generator, for running several sessions in lockstep with `StepEngine.drive`."""
        return self._stepping(until, pause_at, cooperative=False)

    def cooperating(self, until: float | None = None) -> Generator[StepRequest | Waiting, Any, str]:
        """As `stepping`, but where a session on a wall clock would block it yields a `Waiting` instead."""
        return self._stepping(until, None, cooperative=True)

    def describe(self) -> dict[str, Any]:
        """The settings as plain values: what a trace needs to be replayed."""
        return self.settings.as_dict()

    def _stepping(self, until: float | None, pause_at: float | None, *, cooperative: bool) -> Generator[Any, Any, str]:
        self.end_reason, self._pausing = "", False
        if self._begin is None:
            self._begin = self.clock.now()  # not when it was made: a wall clock may be started in between
        try:
            if self.progress.token is None and not self.progress.rows:
                self._open()
            while True:
                if self.progress.rows:
                    token = yield from self._feed()
                    if self._is_over(until):
                        return self._end("until", until)
                    self._say(token)
                    if self.progress.emitted >= self.settings.max_new_tokens:
                        return self._end("max_new_tokens", until)
                reason = yield from self._next_rows(until, pause_at, cooperative)
                if reason == PAUSED:
                    self.end_reason = reason
                    return reason
                if reason:
                    return self._end(reason, until)
        except BaseException:
            self.inbox.close()  # whoever waits to push a frame must not wait for ever
            self.cache.release()  # its owner may look at the session for long; the pages are the others'
            raise

    # ----- one step

    def _feed(self) -> Generator[StepRequest, int, int]:
        """Feed the rows that are due; returns the token that follows them."""
        begin = self.clock.now()
        request = self._request()
        size = self._size(request) if self._costs is not None else None
        token = yield request
        if size is not None:
            self._spend(size, request.ahead)
        self.log.metrics.busy += self.clock.now() - begin
        self.inbox.settle(self.progress.frames, self.cache.frames)
        if self.progress.frames:
            self.log.metrics.memory.add(self.clock.now(), self.cache.num_bytes)
        for frame in self.progress.frames:
            self.turns.newest_frame = frame.number
            self.log.emit("frame_done", frame=frame.number, step=self.progress.step)
        self.progress.rows, self.progress.frames = [], []
        self.progress.step += 1
        return token

    def _request(self) -> StepRequest:
        frames = self.progress.frames
        # Who speaks most likely says one more token next; who is silent waits for something.
        request = StepRequest(self.cache, self.progress.rows, sampler=self.sampler, ahead=self.turns.speaking)
        if any(frame.ticket is not None for frame in frames):
            request.features = torch.cat([self._features(frame) for frame in frames])  # [f, P, H]
        elif frames:
            request.frames = torch.stack([frame.pixels for frame in frames])  # uint8 [f, 3, S, S]
        return request

    def _size(self, request: StepRequest) -> StepSize:
        frames = len(self.progress.frames)
        alone = request.ahead and len(self.progress.rows) == 1
        return StepSize(len(self.progress.rows), frames, self.cache.length, self.cache.frames, alone, self.progress.prompts_fed)

    def _spend(self, size: StepSize, ahead: bool) -> None:
        """Let the virtual clock go on by what the step would have taken, and before it by what its frames still need."""
        assert isinstance(self.clock, VirtualClock) and self._costs is not None
        progress, costs = self.progress, self._costs
        tickets = [frame.ticket for frame in progress.frames]
        begin = now = self.clock.now()
        hidden = 0.0
        if size.speaking and progress.launched_at is not None:
            begin = progress.launched_at  # where speech is paced it may have ended long ago
        elif progress.device_busy_until > now:  # what was launched ahead is not wanted, and yet it ends first
            hidden = min(costs.hidden_seconds(), costs.step_seconds(size))
            begin = max(now + hidden, progress.device_busy_until)
        ready = max((ticket.ready_at for ticket in tickets if isinstance(ticket, SimulatedTicket)), default=begin)
        bare = sum(ticket is None for ticket in tickets)
        begin = max(begin, ready) + (costs.encode_seconds(bare) if bare else 0.0)
        end = max(now, begin + costs.step_seconds(size) - hidden)
        self.clock.spend(end - now)
        progress.device_busy_until = end + (costs.ahead_seconds if ahead else 0.0)
        progress.launched_at = end if ahead and costs.ahead_seconds else None
        if ahead and self._encoder is not None:
            self._encoder.beside(now, progress.device_busy_until)

    def _features(self, frame: PendingFrame) -> torch.Tensor:
        """[1, P, H] of a frame that the encoder has, or that came before there was one."""
        if frame.ticket is None:
            return self.engine.encode(frame.pixels[None])
        return frame.ticket.features()

    def _say(self, token: int) -> None:
        self.progress.token, self.progress.silent_since = token, None
        self.progress.emitted += 1
        self.pacer.spend()
        self.turns.say(token)

    # ----- between two steps

    def _next_rows(self, until: float | None, pause_at: float | None, cooperative: bool) -> Generator[Any, Any, str]:
        """Keep the pace, take what has arrived, wait where there is nothing to say; then the rows of the next step are set.

        Returns:
            A reason to stop, or ''.
        """
        progress = self.progress
        if progress.silent_since is None:
            yield from self._keep_pace(until, cooperative)
            progress.silent_since = self.pacer.time
        while True:
            self.inbox.wake.clear()
            reason = self._reason_to_stop(until, pause_at)
            if reason:
                return reason
            if self._take():
                return ""
            if progress.frames or (not self.turns.closed and (progress.prompts or not self._silent)):
                return self._build_rows()
            if self.inbox.open:
                progress.silent_since = self.pacer.time
            goal = self._idle_goal(progress.silent_since, until)
            if goal is None:
                return "idle"
            goal = min(goal, math.inf if until is None else until, math.inf if pause_at is None else pause_at)
            yield from self._wait(goal, cooperative)
            if self.clock.now() >= goal:
                self.pacer.reach(goal)

    def _keep_pace(self, until: float | None, cooperative: bool) -> Generator[Any, Any, None]:
        while not self.inbox.end_reason:
            self.inbox.wake.clear()
            goal = self.pacer.due(self.inbox.next_time() if self.pacer.exhausted else None)
            if goal is None:
                return
            goal = goal if until is None else min(goal, until)
            if self.clock.now() >= goal:
                self.pacer.reach(goal)
                return
            yield from self._wait(goal, cooperative)

    def _wait(self, goal: float, cooperative: bool) -> Generator[Waiting, Any, None]:
        if cooperative and not isinstance(self.clock, VirtualClock):
            yield Waiting(goal, self.inbox.wake)
        else:
            self.clock.wait_until(goal, self.inbox.wake)

    def _idle_goal(self, silent_since: float, until: float | None) -> float | None:
        """Until when to wait for something; None: no longer."""
        scheduled = self.inbox.next_time()
        if scheduled is not None or until is not None or self.inbox.open:
            return math.inf if scheduled is None else scheduled
        give_up = silent_since + (self.settings.idle_timeout or 0.0)
        return give_up if self.pacer.time < give_up else None

    def _take(self) -> bool:
        """Take what has arrived; True where that was a reset, whose rows are set."""
        carried, self.progress.carried = self.progress.carried, Drained()
        # Speech does not wait for the encoder, where encoding takes time.
        idle = self._silent or self.turns.closed or self.pacer.exhausted or not self._takes_time
        drained = self.inbox.drain(self.pacer.time, most=self.settings.frames_per_step, ready_only=not idle)
        self._report_news()
        spoken, frames = [*carried.spoken, *drained.spoken], [*carried.frames, *drained.frames]
        resets = [place for place, arrival in enumerate(spoken) if arrival.control == "reset"]
        if resets:
            self._reset(spoken, resets[-1], frames)
            return True
        self.progress.prompts += self.turns.hear(spoken, self.progress.step)
        self.progress.frames += frames
        return False

    def _build_rows(self) -> str:
        """Returns a reason to end, or ''."""
        progress = self.progress
        assert progress.token is not None
        if progress.prompts or progress.frames:
            self.pacer.open_slot()
        if progress.prompts:
            self.cache.prompt_boundary()
        self.cache.frame_times.extend(frame.t for frame in progress.frames)
        progress.prompts_fed = len(progress.prompts)
        spliced = self.turns.splice(progress.prompts, [frame.number for frame in progress.frames])
        progress.rows, progress.prompts = [progress.token, *spliced], []
        end = self.cache.next_position + len(progress.rows)
        return "position_limit" if end > self.engine.model.config.text.max_position_embeddings else ""

    # ----- beginning and end

    def _open(self) -> None:
        """The first turn, whose user has not said anything."""
        system = self.settings.system
        opening: list[Message] = [Message(role="system", content=system)] if system else []
        self.progress.rows = encode_prompt([*opening, Message(role="user", content="")], self.tokenizer)
        self.log.emit("turn_start")

    def _forget(self) -> None:
        """An empty cache and a sampler that has chosen nothing."""
        tokenizer = self.tokenizer
        self.cache = self.engine.new_cache(positions=1024, frames=64, policy=self.settings.policy)
        # Real-time turns are closed by the next prompt: a model that wants to close one has nothing to say.
        closing = {tokenizer.eot_id, tokenizer.eom_id, tokenizer.eos_text_id}
        banned = {tokenizer.ellipsis_id, tokenizer.video_id, tokenizer.image_id, tokenizer.bos_id, tokenizer.pad_id}
        banned |= {tokenizer.start_header_id, tokenizer.end_header_id}
        self.sampler = Sampler(self.settings.sampling, banned=banned, silence_id=tokenizer.silence_id, silenced=closing)

    def _reset(self, spoken: list[Arrival], place: int, frames: list[PendingFrame]) -> None:
        """Begin anew; what came before the reset is forgotten, what came after it waits for the first token."""
        self.turns.hear(spoken[:place], self.progress.step)
        reset = spoken[place]
        old = [frame for frame in frames if frame.t <= reset.t]
        self.inbox.drop(old, "reset", reset.t)
        self._report_news()
        self.log.emit("reset", t=reset.t, step=self.progress.step)
        self.progress.carried = Drained(spoken[place + 1 :], [frame for frame in frames if frame.t > reset.t])
        self.progress.prompts, self.progress.token = [], None
        self.cache.release()
        self.turns = TurnTaker(self.tokenizer, self.log)
        self._forget()
        self._open()

    def _listen(self) -> None:
        """Take the inbox over, with the settings' policy and, where frames are encoded on arrival, the engine's encoder."""
        settings, vision = self.settings, self.engine.model.config.vision
        policy = make_policy(settings.queue_policy, coalesce_threshold=settings.coalesce_threshold)
        submit = None
        if settings.encode_on_arrival:
            submit = self._encode_on_arrival()
        self.inbox.expect((vision.num_channels, vision.image_size, vision.image_size), settings.max_frames)
        self.inbox.use_policy(policy, settings.max_pending_frames)
        self.inbox.listen(submit=submit, wall=self.clock.wall)

    def _encode_on_arrival(self) -> Submit:
        if self._costs is not None:
            self._encoder = SimulatedEncoder(self._costs, self.clock.now, self.engine.encode)
            return self._encoder.submit
        encoder = self.engine.encoder
        clip = encoder.new_clip()
        return lambda pixels, t: encoder.submit(pixels, clip=clip)

    @property
    def _silent(self) -> bool:
        return self.progress.token == self.tokenizer.silence_id

    def _is_over(self, until: float | None) -> bool:
        return until is not None and self.pacer.time >= until

    def _reason_to_stop(self, until: float | None, pause_at: float | None) -> str:
        if self.inbox.end_reason:
            return self.inbox.end_reason
        if self._is_over(until):
            return "until"
        due = pause_at is not None and self.pacer.time >= pause_at
        return PAUSED if due or self._pausing else ""

    def _report_news(self) -> None:
        for event in self.inbox.news():
            self.log.record(event)

    def _end(self, reason: str, until: float | None) -> str:
        """Settle the frames that arrived but were not taken, and stop."""
        now = self.pacer.time if until is None else min(self.pacer.time, until)
        unheard = [*self.progress.carried.spoken, *self.inbox.finish(now)]
        self._report_news()
        for arrival in unheard:
            self.log.emit(arrival.control or "prompt", t=arrival.t, text=arrival.prompt or "", reason="stream_end")
        self.turns.flush()
        self.end_reason = reason
        metrics = self.log.metrics.summary(self.clock.now() - (self._begin or 0.0), self.ledger.as_dict())
        self.log.emit("end", reason=reason, step=self.progress.step, metrics=metrics)
        self.cache.release()
        return reason
