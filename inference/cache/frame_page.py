"""What a page of the cross pool stands for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class PageKind(Enum):
    """How much of a frame is left."""

    FRAME = "frame"
    """One frame, every token."""
    RECALLED = "recalled"
    """One frame that was put away and fetched again for the present turn."""
    POOLED = "pooled"
    """A share of a batch of frames, each pooled two by two."""
    CLASS = "class"
    """Class tokens of a batch of frames."""


@dataclass(frozen=True, slots=True)
class FramePage:
    """One page of a session's `cross_table`.

    Attributes:
        positions: rotary positions; one for the whole page, or one for each of its rows.
        number: of the first frame in it, counted from the session's first.
        time: stream time in seconds of the newest frame in it; None where nobody said.
    """

    positions: tuple[int, ...]
    number: int
    kind: PageKind = PageKind.FRAME
    time: float | None = None
