"""Hands a session what has arrived: from a schedule with known times, and from any thread while the session runs."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from inference.evaluation.schema import TraceEvent
from inference.session.arrivals import Arrival
from inference.session.frame_queue import FrameQueue, PendingFrame, Ticket
from inference.session.queue_policies import QueuePolicy
from model.errors import InputError


class Submit(Protocol):
    """Starts the encoding of one frame uint8 [3, S, S] that arrived at stream time `t`."""

    def __call__(self, frame: torch.Tensor, t: float, /) -> Ticket: ...


@dataclass
class Drained:
    """What was taken at one token boundary."""

    spoken: list[Arrival] = field(default_factory=list)
    """Prompts and controls, in order of time."""
    frames: list[PendingFrame] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.spoken or self.frames)


class Inbox:
    """Frames, prompts and controls on their way to one session.

    `push_*` and `close` may be called from any thread. Prompts and controls always get through; frames pass a
    `FrameQueue`, whose policy may make a pushing thread wait.

    Args:
        schedule: arrivals with known times, in order; drawn only when their time comes, so a video may be decoded as it
            is read. Where the policy makes sources wait, it waits too, with all that follows.
        live: whether more may be pushed; such an inbox is exhausted only after `close`.

    Attributes:
        wake: set when something came in from outside.
        drawn: arrivals taken from the schedule so far.
        end_reason: set by `end`.
    """

    def __init__(self, schedule: Iterable[Arrival] = (), *, live: bool = False) -> None:
        self.wake = threading.Event()
        self.queue = FrameQueue()
        self.drawn = 0
        self.end_reason = ""
        self._changed = threading.Condition(threading.RLock())
        self._schedule = iter(schedule)
        self._next = next(self._schedule, None)
        self._spoken: list[tuple[float, int, Arrival]] = []
        self._order = itertools.count()
        self._open = live
        self._closed = False
        self._submit: Submit | None = None
        self._wall: Callable[[], float | None] = time.time

    def push_frame(self, frame: torch.Tensor, t: float, *, timeout: float | None = None) -> int | None:
        """A frame uint8 [3, S, S] that was captured at stream time `t` seconds.

        Under the policy `block` the caller waits until there is room.

        Args:
            timeout: seconds to wait at most; None: as long as it takes.

        Returns:
            The frame's number. None: not taken in, because the session is over, the inbox closed, or the time up; such
            a frame was never submitted.
        """
        with self._changed:
            free = self._changed.wait_for(lambda: self._closed or self.queue.has_room, timeout)
            if self._closed or not free:
                return None
            pending = self.queue.submit(t, frame, self._wall())
        self._encode(pending)
        self.wake.set()
        return pending.number

    def push_prompt(self, text: str, t: float) -> bool:
        """A prompt that the user gave at stream time `t`; False where the session is over."""
        return self._push(Arrival(t=t, prompt=text))

    def push_stop(self, t: float) -> bool:
        """Close the answer that is being said, then stay silent until something arrives."""
        return self._push(Arrival(t=t, control="stop"))

    def push_reset(self, t: float) -> bool:
        """Forget everything that was seen and said, and begin anew with what arrives afterwards."""
        return self._push(Arrival(t=t, control="reset"))

    def close(self) -> None:
        """Nothing more will be pushed. Threads that wait to push a frame give up."""
        with self._changed:
            self._open, self._closed = False, True
            self._changed.notify_all()
        self.wake.set()

    def listen(self, *, submit: Submit | None = None, wall: Callable[[], float | None] = time.time) -> None:
        """A session takes this inbox over.

        Args:
            submit: starts the encoding of a frame that was let in; None: frames are encoded by the step that feeds them.
            wall: stamps what is pushed.
        """
        self._submit, self._wall = submit, wall

    def expect(self, shape: tuple[int, ...], max_frames: int) -> None:
        """What a good frame looks like, and how many the session remembers."""
        with self._changed:
            self.queue.expect(shape, max_frames)

    def use_policy(self, policy: QueuePolicy, limit: int) -> None:
        """Another queue policy from now on; also while a source waits."""
        with self._changed:
            self.queue.use(policy, limit)
            self._changed.notify_all()

    def drain(self, now: float, *, most: int | None = None, ready_only: bool = False) -> Drained:
        """All that arrived up to `now` and was not handed out before; frames as `FrameQueue.take` says."""
        self._draw(now)
        with self._changed:
            spoken = []
            while self._spoken and self._spoken[0][0] <= now:
                spoken.append(heapq.heappop(self._spoken)[2])
            frames = self.queue.take(now, most, ready_only=ready_only)
            if frames:
                self._changed.notify_all()
        return Drained(spoken, frames)

    def settle(self, frames: Sequence[PendingFrame], kept: int) -> None:
        """The model has taken these frames in flight and remembers `kept` frames."""
        with self._changed:
            self.queue.settle(frames, kept)

    def discard(self, reason: str, t: float) -> None:
        """Drop the frames that wait or are in flight."""
        with self._changed:
            self.queue.discard(reason, t)
            self._changed.notify_all()

    def end(self, reason: str = "stopped") -> None:
        """End the session at its next token boundary, also while it waits; `reason` becomes its `end_reason`."""
        with self._changed:
            self.end_reason = self.end_reason or reason
            self._closed = True
            self._changed.notify_all()
        self.wake.set()

    def finish(self, now: float) -> list[Arrival]:
        """The session is over: frames that arrived up to `now` go unused, nothing is taken in any more.

        Returns:
            The prompts and controls that nobody dealt with.
        """
        self._draw(now)
        with self._changed:
            self._open, self._closed = False, True
            self.queue.discard("stream_end", now)
            left = [arrival for _, _, arrival in sorted(self._spoken, key=lambda item: item[:2]) if arrival.t <= now]
            self._spoken.clear()
            self._changed.notify_all()
        return left

    def drop(self, frames: Sequence[PendingFrame], reason: str, t: float) -> None:
        """Drop some of the frames in flight."""
        with self._changed:
            self.queue.give_up(frames, reason, t)

    def news(self) -> list[TraceEvent]:
        """What happened to frames since the last call."""
        with self._changed:
            found = list(self.queue.news)
            self.queue.news.clear()
        return found

    def next_time(self) -> float | None:
        """Time of the earliest arrival that is known and not handed out; None where there is none."""
        with self._changed:
            times = [self._spoken[0][0]] if self._spoken else []
            if self.queue.waiting:
                times.append(self.queue.waiting[0].t)
            held_back = self._next is not None and self._next.frame is not None and not self.queue.has_room
        if self._next is not None and not held_back:
            times.append(self._next.t)
        return min(times, default=None)

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Nothing comes in while it is held."""
        return self._changed

    @property
    def open(self) -> bool:
        """Whether more may be pushed."""
        return self._open

    @property
    def exhausted(self) -> bool:
        """Nothing waits and nothing can come."""
        return self._next is None and not self._spoken and not self.queue.waiting and not self._open

    def pending(self) -> list[Arrival]:
        """Prompts and controls that wait, in order of time."""
        with self._changed:
            return [arrival for _, _, arrival in sorted(self._spoken, key=lambda item: item[:2])]

    def put_back(self, arrival: Arrival) -> None:
        """A prompt or control that a saved session had not dealt with."""
        with self._changed:
            self._put(arrival)

    def skip(self, count: int) -> None:
        """Leave out the first `count` arrivals of the schedule: a restored session has dealt with them."""
        for _ in range(count):
            if self._next is None:
                raise InputError(f"the schedule ends before arrival {count}; give the one that the saved session had")
            self._advance()

    def _push(self, arrival: Arrival) -> bool:
        with self._changed:
            if self._closed:
                return False
            self._put(arrival)
        self.wake.set()
        return True

    def _put(self, arrival: Arrival) -> None:
        heapq.heappush(self._spoken, (arrival.t, next(self._order), arrival))

    def _draw(self, now: float) -> None:
        """Take from the schedule what is due; only the session's own thread comes here."""
        while self._next is not None and self._next.t <= now:
            arrival = self._next
            if arrival.frame is None:
                with self._changed:
                    self._put(arrival)
            else:
                with self._changed:
                    if not self.queue.has_room:
                        return
                    pending = self.queue.submit(arrival.t, arrival.frame)
                self._encode(pending)
            self._advance()

    def _advance(self) -> None:
        self._next = next(self._schedule, None)
        self.drawn += 1

    def _encode(self, frame: PendingFrame) -> None:
        """Start the encoding of a frame that was let in, outside of the lock: it may take a while."""
        if self._submit is None:
            return
        with self._changed:
            wanted = any(frame is one for one in self.queue.waiting)
        if wanted:
            frame.ticket = self._submit(frame.pixels, frame.t)
