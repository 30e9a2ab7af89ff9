"""Keep the newest frames, and perhaps the first ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from inference.cache.frame_page import FramePage
from inference.cache.policies.operations import DropFrames, KeepsNothingBack, Operation
from model.errors import InputError


@dataclass(frozen=True)
class Window(KeepsNothingBack):
    """The newest `frames` frames; those older than `seconds` go as well, where the stream says its times."""

    frames: int
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"the window of frames is {self.frames}; it must hold at least 1 frame")
        if self.seconds is not None and not 0 < self.seconds < float("inf"):
            raise InputError(f"the window of frames is {self.seconds} seconds; it must be above 0 and finite")

    def decide(self, pages: Sequence[FramePage], tokens_per_frame: int) -> Operation | None:
        """Drop what has left the window."""
        excess = excess_of(pages, self.frames, self.seconds)
        return DropFrames(0, excess) if excess else None

    def most_pages(self, tokens_per_frame: int, step_frames: int) -> int | None:
        """The window, and the frames of a step before it is trimmed."""
        return self.frames + step_frames

    def spell(self) -> str:
        """As it is written on a command line."""
        return f"window:{self.frames}" if self.seconds is None else f"window:{self.seconds:g}s:{self.frames}"


@dataclass(frozen=True)
class SinkWindow(KeepsNothingBack):
    """The first `sink` frames of the session and the newest `frames`."""

    sink: int
    frames: int

    def __post_init__(self) -> None:
        for name, value in (("sink", self.sink), ("window", self.frames)):
            if value < 1:
                raise InputError(f"the {name} of sink_window is {value} frames; it must hold at least 1")

    def decide(self, pages: Sequence[FramePage], tokens_per_frame: int) -> Operation | None:
        """Drop what lies between."""
        excess = len(pages) - self.sink - self.frames
        return DropFrames(self.sink, excess) if excess > 0 else None

    def most_pages(self, tokens_per_frame: int, step_frames: int) -> int | None:
        """Sink, window, and the frames of a step before it is trimmed."""
        return self.sink + self.frames + step_frames

    def spell(self) -> str:
        """As it is written on a command line."""
        return f"sink_window:{self.sink}:{self.frames}"


def excess_of(pages: Sequence[FramePage], frames: int, seconds: float | None) -> int:
    """How many of the oldest pages have left the window; the newest one never does."""
    excess = max(0, len(pages) - frames)
    newest = pages[-1].time if pages else None
    if seconds is None or newest is None:
        return excess
    while excess < len(pages) - 1:
        time = pages[excess].time
        if time is None or time > newest - seconds:
            break
        excess += 1
    return excess
