"""What one round feeds: every speaker, and as much of the prompts and frames as does not make the speakers wait."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from model.errors import InputError

GRAPH_ROWS, GRAPH_FRAMES = 64, 8
"""What a step of the engine may hold to go through a CUDA graph."""


@dataclass(frozen=True, kw_only=True)
class RoundLimits:
    """Bounds of one round. The defaults are for an 11B model on one large GPU."""

    light_rows: int = 4
    """A request of at most so many rows and no frame is light: it is part of the next round, whatever else waits."""
    heavy_rows: int = 256
    """Rows of all other requests together; a longer prompt is fed in portions."""
    frames: int = 8
    """New frames of all requests together: a frame costs about as much as one step of the decoder."""

    def __post_init__(self) -> None:
        for name in ("light_rows", "heavy_rows", "frames"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} of a round is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Portion:
    """The next `rows` rows of a request, and the `frames` frames whose image tokens are among them."""

    request: int
    rows: int
    frames: int


def split_passes(portions: Sequence[tuple[int, int, bool]]) -> list[list[int]]:
    """Which portions go through the model together: first what fits into a graph, then the rest, so that speakers keep theirs.

    Args:
        portions: (rows, frames, whether a token is asked for) of each; those without need no graph.

    Returns:
        One or two lists of numbers of portions, none empty, each in order.
    """
    rows = frames = 0
    first: list[int] = []
    for number in sorted(range(len(portions)), key=lambda i: portions[i][:2]):
        own_rows, own_frames, asks = portions[number]
        if asks and rows + own_rows <= GRAPH_ROWS and frames + own_frames <= GRAPH_FRAMES:
            rows, frames = rows + own_rows, frames + own_frames
            first.append(number)
    rest = [number for number in range(len(portions)) if number not in set(first)]
    return [part for part in (sorted(first), rest) if part]


def is_light(frames_at: Sequence[bool], limits: RoundLimits) -> bool:
    """Whether what is left of a request goes into every round."""
    return len(frames_at) <= limits.light_rows and not any(frames_at)


def plan_round(waiting: Sequence[Sequence[bool]], limits: RoundLimits) -> list[Portion]:
    """Choose what is fed next.

    Args:
        waiting: what is left of each request, longest unserved first: for each row whether it brings a frame.
        limits: of the round.

    Returns:
        Portions in the order of `waiting`. All light requests are whole. Of the others the first has at least one row,
        so that no request is passed over by more rounds than there are heavy requests before it.
    """
    rows_left, frames_left = limits.heavy_rows, limits.frames
    found = []
    for number, rows in enumerate(waiting):
        if is_light(rows, limits):
            found.append(Portion(number, len(rows), 0))
            continue
        taken = frames = 0
        for brings_frame in rows[:rows_left]:
            if brings_frame and frames == frames_left:
                break
            taken += 1
            frames += brings_frame
        if taken:
            rows_left, frames_left = rows_left - taken, frames_left - frames
            found.append(Portion(number, taken, frames))
    return found
