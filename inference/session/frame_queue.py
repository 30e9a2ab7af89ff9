"""The frames of one session between their arrival and the step that feeds them. No thread, no clock, no model."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from inference.evaluation.schema import TraceEvent
from inference.session.ledger import FrameLedger
from inference.session.queue_policies import DropOldest, QueuePolicy


class Ticket(Protocol):
    """A frame in the encoder."""

    @property
    def ready(self) -> bool:
        """Whether its features are there; never waits."""
        ...

    def features(self) -> torch.Tensor:
        """[1, P, H], for the consumer's stream; never makes the host wait."""
        ...

    def cancel(self) -> None:
        """The frame is not wanted any more."""
        ...


@dataclass(eq=False)
class PendingFrame:
    """A frame that waits."""

    number: int
    """Counted from 0 in the order of submission."""
    t: float
    """Stream time of its arrival, seconds."""
    pixels: torch.Tensor
    """uint8 [3, S, S]."""
    ticket: Ticket | None = None
    """Set where the encoder has it already."""
    thumbnail: torch.Tensor | None = None
    """fp32 [64, 64], where a policy compares frames."""

    @property
    def ready(self) -> bool:
        """Whether it can be fed without waiting for the encoder; pixels alone always can."""
        return self.ticket is None or self.ticket.ready


class FrameQueue:
    """Accepts, keeps, drops and hands out frames; `ledger.balanced` holds between any two calls.

    Args:
        policy: what gives way when more frames come than are taken.
        limit: frames that may wait.

    Attributes:
        waiting: frames that nobody took yet, oldest first.
        in_flight: frames that the step being computed feeds.
        kept: frames that the session remembers; set by the session, counts against `max_frames`.
        news: what happened to frames, for the trace; emptied by its reader.
    """

    def __init__(self, policy: QueuePolicy | None = None, limit: int = 256, ledger: FrameLedger | None = None) -> None:
        self.ledger = ledger or FrameLedger()
        self.policy = policy or DropOldest()
        self.limit = limit
        self.shape: tuple[int, ...] | None = None
        """Of a good frame; None: not known yet, any picture is taken."""
        self.max_frames = 1 << 62
        self.kept = 0
        self.last_t = 0.0
        self.waiting: deque[PendingFrame] = deque()
        self.in_flight: list[PendingFrame] = []
        self.news: deque[TraceEvent] = deque()

    @property
    def has_room(self) -> bool:
        """Whether a source may submit now."""
        return self.policy.has_room(len(self.waiting), self.limit)

    def submit(self, t: float, pixels: torch.Tensor, wall_t: float | None = None) -> PendingFrame:
        """A frame arrived at stream time `t`; it is accepted, dropped or rejected at once, and that is accounted for."""
        frame = PendingFrame(self.ledger.submit(), t, pixels)
        self.news.append(TraceEvent(t=t, kind="frame_in", frame=frame.number, wall_t=wall_t))
        reason = self._fault(frame)
        if reason:
            self._reject(frame, reason)
            return frame
        self.last_t = t
        for dropped, why in self.policy.admit(self.waiting, frame, self.limit):
            self._drop(dropped, why, t)
        return frame

    def take(self, now: float, most: int | None = None, *, ready_only: bool = False) -> list[PendingFrame]:
        """The frames that arrived up to `now`, oldest first; they are in flight until `settle`, `give_up` or `discard`.

        Args:
            most: at most so many; None: all.
            ready_only: stop before the first that the encoder has not done yet.
        """
        taken: list[PendingFrame] = []
        while self.waiting and self.waiting[0].t <= now and (most is None or len(taken) < most):
            if ready_only and not self.waiting[0].ready:
                break
            taken.append(self.waiting.popleft())
        self.in_flight += taken
        if taken:
            self.policy.taken(len(self.waiting), self.limit)
        return taken

    def settle(self, frames: Sequence[PendingFrame], kept: int) -> None:
        """The model has taken these frames in flight and remembers `kept` frames now."""
        for frame in frames:
            self.in_flight.remove(frame)
            self.ledger.process()
        self.kept = kept

    def give_up(self, frames: Sequence[PendingFrame], reason: str, t: float) -> None:
        """Drop some of the frames in flight."""
        for frame in frames:
            self.in_flight.remove(frame)
            self._drop(frame, reason, t)

    def discard(self, reason: str, t: float) -> None:
        """Drop everything that waits or is in flight."""
        frames: Sequence[PendingFrame] = [*self.in_flight, *self.waiting]
        self.in_flight = []
        self.waiting.clear()
        for frame in frames:
            self._drop(frame, reason, t)

    def expect(self, shape: tuple[int, ...], max_frames: int) -> None:
        """Say what a good frame looks like and how many are remembered; what waits already is held to it."""
        self.shape, self.max_frames = shape, max_frames
        early, self.waiting = self.waiting, deque()
        for frame in early:
            reason = self._fault(frame, again=True)
            if reason:
                self._reject(frame, reason)
            else:
                self.waiting.append(frame)

    def use(self, policy: QueuePolicy, limit: int) -> None:
        """Another policy from now on; where more frames wait than it allows, the oldest go."""
        self.policy, self.limit = policy, limit
        while len(self.waiting) > limit:
            self._drop(self.waiting.popleft(), "backlog", self.last_t)

    def _fault(self, frame: PendingFrame, again: bool = False) -> str:
        pixels = frame.pixels
        good = tuple(pixels.shape) == self.shape if self.shape is not None else pixels.ndim == 3
        if not good or pixels.dtype != torch.uint8:
            return "shape"
        if not again and not self.last_t <= frame.t < math.inf:  # not-a-number too
            return "time"
        if self.kept + len(self.in_flight) + len(self.waiting) >= self.max_frames:
            return "capacity"
        return ""

    def _drop(self, frame: PendingFrame, reason: str, t: float) -> None:
        _withdraw(frame)
        self.ledger.drop(reason)
        self.news.append(TraceEvent(t=t, kind="frame_dropped", frame=frame.number, reason=reason))

    def _reject(self, frame: PendingFrame, reason: str) -> None:
        _withdraw(frame)
        self.ledger.reject(reason)
        self.news.append(TraceEvent(t=frame.t, kind="frame_rejected", frame=frame.number, reason=reason))


def _withdraw(frame: PendingFrame) -> None:
    """Tell the encoder that nobody waits for the frame."""
    if frame.ticket is not None:
        frame.ticket.cancel()
        frame.ticket = None
