"""What a source of frames is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


class Now(Protocol):
    """The part of a clock that a source reads: seconds since the stream began."""

    def now(self) -> float:
        """The present moment."""
        ...


@dataclass(frozen=True)
class TimedFrame:
    """A frame and the stream time at which it is due."""

    t: float
    """Seconds since the stream began."""
    frame: torch.Tensor
    """uint8 [3, S, S], fitted into the model's square."""


class FrameSource(Protocol):
    """Frames with times, in their order.

    Attributes:
        name: what messages call it.
        live: time passes whether its frames are taken or not, so that it needs a real clock. The frames of such a source
            come when they come and bear the clock's time; those of a recorded one bear i / fps and come as fast as
            they are drawn, and `SourcePump` lets none through before its time.
        duration: seconds after which it is over; None where nobody knows.
        prompts: (seconds, text) of what is said to it by script.
    """

    name: str
    live: bool
    duration: float | None
    prompts: Sequence[tuple[float, str]]

    def frames(self, clock: Now) -> Iterator[TimedFrame]:
        """Draw the frames, once.

        Raises:
            InputError: the source is damaged or lost, when that is reached.
        """
        ...

    def close(self) -> None:
        """From any thread: let go of it; a wait for the next frame ends soon."""
        ...


def slot_times(count: int, fps: float) -> list[float]:
    """Seconds at which `count` frames of a recorded source are due: i / fps, each from the start, so that nothing drifts."""
    return [i / fps for i in range(count)]
