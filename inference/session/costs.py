"""What computing takes, for clocks that no machine drives: seconds of steps and frames, and an encoder that works meanwhile."""

from __future__ import annotations

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

    def encode_seconds(self, frames: int, speech: float = 0.0) -> float:
        """From a frame's arrival at the idle encoder to its features; `speech`: share of the time that tokens take meanwhile."""
        ...

    def speech_share(self, tokens_per_second: float | None) -> float:
        """Share of the time that tokens take at this pace; None: as fast as they come."""
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
    """None: it waits for the encoder."""
    cancelled: bool = False


class SimulatedEncoder:
    """Encodes frames on arrival in the time that costs say; frames that come while it works share its next call.

    Args:
        costs: seconds.
        now: the session's clock.
        encode: makes features [f, P, H] of uint8 [f, 3, S, S], in no time.
        speech: share of the time in which the session computes tokens at present.
    """

    def __init__(
        self,
        costs: Costs,
        now: Callable[[], float],
        encode: Callable[[torch.Tensor], torch.Tensor],
        speech: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._costs, self._now, self._encode, self._speech = costs, now, encode, speech
        self._waiting: list[_Job] = []
        self._free_at = 0.0

    def submit(self, pixels: torch.Tensor, t: float) -> SimulatedTicket:
        """A frame that arrived at stream time `t`."""
        self._advance(t)
        job = _Job(t)
        self._waiting.append(job)
        return SimulatedTicket(self, job, pixels)

    def ready_at(self, job: _Job) -> float:
        """When a frame's features are there, if nothing more comes."""
        self._advance(self._now())
        if job.ready_at is None:
            self._launch()
            while job.ready_at is None:  # the call before it must end first
                self._launch()
        return job.ready_at

    def is_ready(self, job: _Job) -> bool:
        """Whether they are there now."""
        self._advance(self._now())
        return job.ready_at is not None and job.ready_at <= self._now()

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """[1, P, H]"""
        return self._encode(pixels[None])

    def _advance(self, now: float) -> None:
        """Launch every call that has begun by `now`."""
        while any(not job.cancelled and max(self._free_at, job.t) <= now for job in self._waiting):
            self._launch()

    def _launch(self) -> None:
        self._waiting = [job for job in self._waiting if not job.cancelled]
        if not self._waiting:
            return
        begin = max(self._free_at, self._waiting[0].t)
        batch = [job for job in self._waiting if job.t <= begin][: self._costs.frames_a_call]
        self._free_at = begin + self._costs.encode_seconds(len(batch), self._speech())
        for job in batch:
            job.ready_at = self._free_at
        self._waiting = self._waiting[len(batch) :]


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
