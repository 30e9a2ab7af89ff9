"""A recorded session once more, token for token: from its arrivals on a virtual clock, or by its recorded token boundaries.

A trace of a virtual clock holds all that its run depended on: the arrivals with their times. A trace of a wall clock does
not, since how far computing got decides what a token saw; but it says at which token boundary each arrival was taken. Nor does
one of a virtual clock on which computing took the times of a latency profile.
"""

from __future__ import annotations

import dataclasses
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine
from inference.evaluation.schema import Trace, TraceEvent
from inference.session.arrivals import Arrival, merge
from inference.session.clock import Clock, VirtualClock
from inference.session.frame_queue import PendingFrame
from inference.session.inbox import Drained, Inbox, Submit
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings
from model.errors import InputError

_DECIDED = (
    "frame_done",
    "frame_during_speech",
    "prompt",
    "stop",
    "reset",
    "turn_start",
    "turn_interrupted",
    "token",
    "silence",
)
"""Events that follow from what was taken at which token boundary, whatever the clock."""

_OWN_ENDS = ("idle", "until", "max_new_tokens", "position_limit")
"""Reasons of an end that follows from the stream and the settings; all others came from outside, at any moment."""


class Frames(Protocol):
    """Pixels by frame number: a list, a dict, or anything that reads them when asked."""

    def __getitem__(self, number: int, /) -> torch.Tensor: ...


@dataclass(frozen=True)
class Difference:
    """The first place at which a replay leaves its record."""

    index: int
    """Of the recorded event in the trace; behind the last where the replay went on."""
    recorded: TraceEvent | None
    replayed: TraceEvent | None

    def describe(self) -> str:
        """One sentence."""
        return f"event {self.index}: recorded {_spell(self.recorded)}, replayed {_spell(self.replayed)}"


@dataclass
class ReplayReport:
    """What came of a replay.

    Attributes:
        compared: events that were held against the record and agree.
        difference: the first that does not; None: the replay is the record.
        events: of the replay, up to the difference.
    """

    compared: int = 0
    difference: Difference | None = None
    events: list[TraceEvent] = field(default_factory=list)

    @property
    def matches(self) -> bool:
        return self.difference is None


def replay_trace(trace: Trace, frames: Frames, engine: StepEngine, tokenizer: Tokenizer) -> ReplayReport:
    """Run a recorded session again and compare every event.

    Args:
        trace: of mode `push`; its `engine` holds the settings under `session` (`RealtimeSession.describe`) and the clock.
        frames: uint8 [3, S, S] of each recorded frame by its number.
        engine: of the same checkpoint.
        tokenizer: the checkpoint's own.

    Raises:
        InputError: the trace was not made by a session, or a frame is missing.
    """
    name = f"trace {trace.scenario_id!r}"
    given = trace.engine.get("session")
    if trace.mode != "push" or not isinstance(given, dict):
        raise InputError(f"{name} holds no settings of a session; give one that `moss stream --trace` wrote")
    settings = dataclasses.replace(SessionSettings.from_dict(given, name), encode_on_arrival=False, keep_events=False)
    if trace.engine.get("clock") == "virtual" and not trace.engine.get("latency_profile"):
        inbox: Inbox = Inbox(merge(_spoken(trace), _recorded_frames(trace, frames)))
        clock: Clock = VirtualClock()
        comparison = _Comparison(trace, None)
    else:
        inbox, clock = _ScriptedInbox(trace, frames), _ReplayClock()
        comparison = _Comparison(trace, _DECIDED)
    session = RealtimeSession(engine, tokenizer, inbox, clock, settings, comparison)
    if isinstance(inbox, _ScriptedInbox):
        inbox.session = session
    end = next((event for event in reversed(trace.events) if event.kind == "end"), None)
    try:
        session.run(until=end.t if end is not None and end.reason == "until" and isinstance(clock, VirtualClock) else None)
        comparison.finish()
    except _Over:
        pass
    return comparison.report


class _Over(Exception):
    """Nothing more is to be compared."""


class _Comparison:
    """Holds each event of the replay against the next one of the record.

    Args:
        kinds: of the events that are compared, by what they say; None: all of them, by their times too.
    """

    def __init__(self, trace: Trace, kinds: tuple[str, ...] | None) -> None:
        self.report = ReplayReport()
        self._kinds = kinds
        self._next = 0
        self._from_outside = any(event.kind == "end" and event.reason not in _OWN_ENDS for event in trace.events)
        events = trace.events[: _behind_last_token(trace.events)] if self._from_outside else trace.events
        self._recorded = [(i, event) for i, event in enumerate(events) if kinds is None or event.kind in kinds]

    def __call__(self, event: TraceEvent) -> None:
        if self._kinds is not None and event.kind not in self._kinds:
            return
        self.report.events.append(event)
        if self._next == len(self._recorded):
            if self._kinds is None and not self._from_outside:
                self._differ(None, event)
            raise _Over  # a wall clock's end is no decision of the session, nor is an interruption
        index, recorded = self._recorded[self._next]
        if self._key(recorded) != self._key(event):
            self._differ(recorded, event, index)
        self._next += 1
        self.report.compared += 1

    def finish(self) -> None:
        """The replay is over: is the record?"""
        if self._next < len(self._recorded):
            index, recorded = self._recorded[self._next]
            self.report.difference = Difference(index, recorded, None)

    def _differ(self, recorded: TraceEvent | None, replayed: TraceEvent, index: int | None = None) -> None:
        last = self._recorded[-1][0] + 1 if self._recorded else 0
        self.report.difference = Difference(last if index is None else index, recorded, replayed)
        raise _Over

    def _key(self, event: TraceEvent) -> TraceEvent:
        t = event.t if self._kinds is None else 0.0
        return dataclasses.replace(event, t=t, wall_t=None, metrics=None)


def _behind_last_token(events: Sequence[TraceEvent]) -> int:
    """Events up to the last token: what stands behind it in a session that was ended from outside is its end."""
    return max(
        (i + 1 for i, event in enumerate(events) if event.kind in ("token", "silence") and event.token is not None), default=0
    )


class _ReplayClock:
    """Stands still, except where a pace is waited for."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        return self._now

    def wait_until(self, t: float, wake: threading.Event) -> None:
        self._now = max(self._now, t)

    def wall(self) -> float | None:
        return None


class _ScriptedInbox(Inbox):
    """Hands out at each token boundary what was taken there."""

    session: RealtimeSession

    def __init__(self, trace: Trace, frames: Frames) -> None:
        super().__init__()
        self._script: dict[int, Drained] = defaultdict(Drained)
        for arrival, step in _with_steps(trace):
            self._script[step].spoken.append(arrival)
        arrived = {event.frame: event.t for event in trace.events if event.kind == "frame_in"}
        for event in trace.events:
            if event.kind == "frame_done" and event.frame is not None and event.step is not None:
                frame = PendingFrame(event.frame, arrived.get(event.frame, event.t), torch.empty(0))
                self._script[event.step].frames.append(frame)
        self._frames = frames

    def listen(self, *, submit: Submit | None = None, wall: object = None) -> None:
        """Nothing is pushed."""

    def drain(self, now: float, *, most: int | None = None, ready_only: bool = False) -> Drained:
        """All of the step that is due, whatever the time."""
        found = self._script.pop(self.session.progress.step, Drained())
        for frame in found.frames:
            frame.pixels = _frame(self._frames, frame.number)
        return found

    def settle(self, frames: Iterable[PendingFrame], kept: int) -> None:
        """The record has accounted for them."""

    def drop(self, frames: Iterable[PendingFrame], reason: str, t: float) -> None:
        """The record has accounted for them."""


def _with_steps(trace: Trace) -> Iterator[tuple[Arrival, int]]:
    """Prompts and controls that were taken, and the step that each of them led to."""
    for event in trace.events:
        if event.step is None or event.reason == "stream_end":
            continue
        if event.kind == "prompt":
            yield Arrival(t=event.t, prompt=event.text), event.step
        elif event.kind in ("stop", "reset"):
            yield Arrival(t=event.t, control=event.kind), event.step


def _spoken(trace: Trace) -> Iterator[Arrival]:
    """Prompts and controls with their times, in order."""
    events = [event for event in trace.events if event.kind in ("prompt", "stop", "reset")]
    for event in sorted(events, key=lambda event: event.t):
        prompt = event.text if event.kind == "prompt" else None
        yield Arrival(t=event.t, prompt=prompt, control=None if prompt is not None else event.kind)


def _recorded_frames(trace: Trace, frames: Frames) -> Iterator[Arrival]:
    """Every submitted frame with its time; one of a wrong shape is wrong again."""
    wrong = {event.frame for event in trace.events if event.kind == "frame_rejected" and event.reason == "shape"}
    for event in trace.events:
        if event.kind == "frame_in" and event.frame is not None:
            pixels = torch.empty(0) if event.frame in wrong else _frame(frames, event.frame)
            yield Arrival(t=event.t, frame=pixels)


def _frame(frames: Frames, number: int) -> torch.Tensor:
    try:
        return frames[number]
    except (KeyError, IndexError):
        raise InputError(f"frame {number} of the trace is missing; give the frames that the recorded session had") from None


def _spell(event: TraceEvent | None) -> str:
    if event is None:
        return "nothing more"
    what = [event.kind]
    if event.token is not None:
        what.append(f"of id {event.token}")
    if event.text:
        what.append(repr(event.text))
    if event.frame is not None:
        what.append(f"at frame {event.frame}")
    if event.reason:
        what.append(f"({event.reason})")
    return f"{' '.join(what)} at {event.t:.3f} s"
