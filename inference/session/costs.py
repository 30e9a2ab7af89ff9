"""What computing takes, for clocks that no machine drives: seconds of steps and frames, and an encoder that works meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class StepSize:
    """What a step feeds, and into what."""

    rows: int
    """Text rows and image tokens that are fed."""
    new_frames: int
    """Frames among them."""
    kept_rows: int
    """Rows that the session holds before the step."""
    kept_frames: int
    """Frames that it holds."""
    speaking: bool
    """Whether it continues speech: such a step may have been launched before its token was read."""
    prompts: int = 0
    """Prompts among the rows."""


class Costs(Protocol):
    """Seconds of a machine, measured or made up."""

    def step_seconds(self, size: StepSize) -> float:
        """From the beginning of a step, its frames encoded, to the moment at which its token has been said."""
        ...

    def hidden_seconds(self) -> float:
        """The part of a step that the host takes to prepare it, and which passes beside a step that the device still has."""
        ...

    def encode_seconds(self, frames: int, speaking: bool = False) -> float:
        """From a frame's arrival at the idle encoder to its features; `speaking`: beside a decoder that never rests."""
        ...

    @property
    def ahead_seconds(self) -> float:
        """For which a step that was launched ahead keeps the device after its session's last token, whatever else is fed; 0: none
        is launched."""
        ...

    @property
    def frames_a_call(self) -> int:
        """Frames that share one call of the encoder at most."""
        ...


@dataclass(eq=False)
class _Job:
    t: float
    """Arrival."""
    ready_at: float | None = None
    """None: it waits for the encoder, or is in it."""
    cancelled: bool = False


class SimulatedEncoder:
    """Encodes frames on arrival in the time that costs say; frames that come while it works share its next call.

    Beside speech it gets on as slowly as the costs say, but only while the decoder works: when speech ends or pauses, it goes on
    at its full speed.

    Args:
        costs: seconds.
        now: the session's clock.
        encode: makes features [f, P, H] of uint8 [f, 3, S, S], in no time.
    """

    def __init__(self, costs: Costs, now: Callable[[], float], encode: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self._costs, self._now, self._encode = costs, now, encode
        self._waiting: list[_Job] = []
        self._call: list[_Job] = []
        self._begin = 0.0
        """Of the call, or when the encoder became free."""
        self._speech: list[tuple[float, float]] = []
        """When the decoder worked on speech, in order; what lies before the call is left out."""

    def submit(self, pixels: torch.Tensor, t: float) -> SimulatedTicket:
        """A frame that arrived at stream time `t`."""
        self._advance(t)
        job = _Job(t)
        self._waiting.append(job)
        return SimulatedTicket(self, job, pixels)

    def beside(self, begin: float, end: float) -> None:
        """The decoder worked on speech from `begin` to `end`, which may lie before the end of the last time but not before its
        beginning."""
        if self._speech and begin <= self._speech[-1][1]:
            begin, last = self._speech.pop()
            end = max(end, last)
        self._speech.append((begin, end))

    def ready_at(self, job: _Job) -> float:
        """When a frame's features are there, if nothing more comes and nothing is said; endless for one that was cancelled."""
        self._advance(self._now())
        while job.ready_at is None and (self._call or self._start(math.inf)):
            self._finish(self._end())
        return math.inf if job.ready_at is None else job.ready_at

    def is_ready(self, job: _Job) -> bool:
        """Whether they are there now."""
        self._advance(self._now())
        return job.ready_at is not None and job.ready_at <= self._now()

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """[1, P, H]"""
        return self._encode(pixels[None])

    def _advance(self, now: float) -> None:
        """Begin and end every call that began or ended by `now`."""
        while self._call or self._start(now):
            end = self._end()
            if end > now:
                return
            self._finish(end)

    def _start(self, now: float) -> bool:
        """Begin the next call, if there is one that begins by `now`."""
        self._waiting = [job for job in self._waiting if not job.cancelled]
        if not self._waiting or max(self._begin, self._waiting[0].t) > now:
            return False
        self._begin = max(self._begin, self._waiting[0].t)
        self._call = [job for job in self._waiting if job.t <= self._begin][: self._costs.frames_a_call]
        self._waiting = self._waiting[len(self._call) :]
        self._speech = [(begin, end) for begin, end in self._speech if end > self._begin]
        return True

    def _finish(self, end: float) -> None:
        for job in self._call:
            job.ready_at = end
        self._call, self._begin = [], end

    def _end(self) -> float:
        """Of the call, as far as it is known what is said meanwhile."""
        alone, beside = (self._costs.encode_seconds(len(self._call), speaking) for speaking in (False, True))
        t, left = self._begin, 1.0
        for begin, end in self._speech:
            pause = max(0.0, begin - t)
            if alone * left <= pause:
                break
            left -= pause / alone if pause else 0.0
            t = max(t, begin)
            if beside * left <= end - t:
                return t + beside * left
            left -= max(0.0, end - t) / beside
            t = max(t, end)
        return t + alone * left


class SimulatedTicket:
    """The claim to one frame's features, as `inference.vision.ticket.FrameTicket` is."""

    def __init__(self, encoder: SimulatedEncoder, job: _Job, pixels: torch.Tensor) -> None:
        self._encoder, self._job, self._pixels = encoder, job, pixels

    @property
    def ready(self) -> bool:
        """Whether the features are there at the clock's present moment."""
        return not self._job.cancelled and self._encoder.is_ready(self._job)

    @property
    def ready_at(self) -> float:
        """When they are."""
        return self._encoder.ready_at(self._job)

    def features(self) -> torch.Tensor:
        """[1, P, H]"""
        return self._encoder.features(self._pixels)

    def cancel(self) -> None:
        """The frame is not wanted any more; where the encoder has not begun with it, it never does."""
        self._job.cancelled = True
