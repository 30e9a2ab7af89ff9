"""A plan's rectangles, sorted into those that get a call of their own and those that share one call."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from torch import Tensor

from model.attention.cross.plan import CrossPlan
from model.attention.cross.rectangles import Rectangle, cover
from model.upload import upload


@dataclass(frozen=True)
class Sizes:
    """When a rectangle gets a call of its own.

    cuDNN prepares every new pair of lengths for about 0.1 s, so such rectangles come in whole steps of rows and frames, and
    what is left over is for the shared call: 4,096 rows and 256 frames make 256 pairs of lengths at most.
    """

    rows: int = 512
    """Rows at least."""
    keys: int = 3072
    """Keys at least."""
    row_step: int = 256
    frame_step: int = 16
    most_rows: int = 512
    """Rows of a rectangle in the shared call at most, and frames: that call's grid has room for the largest in every place."""
    most_frames: int = 32


SIZES = Sizes()


@dataclass(frozen=True)
class Tiling:
    """The rectangles of a plan."""

    alone: list[Rectangle]
    """One call each."""
    rows: Tensor
    """int64; rows of the rectangles that share a call, one rectangle behind the other."""
    frames: Tensor
    """int64; their frames, likewise."""
    row_counts: list[int]
    frame_counts: list[int]
    cu_rows: Tensor
    """int32 [rectangles + 1], where each one's rows begin in `rows`."""
    cu_frames: Tensor
    """int32 [rectangles + 1], where each one's frames begin in `frames`."""
    rounds: list[tuple[int, int]]
    """Consecutive ranges of `rows`, in each of which no row occurs twice."""


def _split(rectangle: Rectangle, tokens_per_frame: int, sizes: Sizes) -> tuple[list[Rectangle], list[Rectangle]]:
    """The part that gets its own call, and what is left."""
    r = rectangle
    if r.rows < sizes.rows or r.frames * tokens_per_frame < sizes.keys:
        return [], [r]
    rows = r.row_begin + r.rows // sizes.row_step * sizes.row_step
    frames = r.frame_begin + r.frames // sizes.frame_step * sizes.frame_step
    if rows == r.row_begin or frames == r.frame_begin:
        return [], [r]
    rest = [Rectangle(rows, r.row_end, r.frame_begin, r.frame_end), Rectangle(r.row_begin, rows, frames, r.frame_end)]
    return [Rectangle(r.row_begin, rows, r.frame_begin, frames)], [x for x in rest if x.pairs]


def _pieces(rectangle: Rectangle, sizes: Sizes) -> list[Rectangle]:
    """Cut to what the shared call takes at most."""
    r = rectangle
    return [
        Rectangle(row, min(row + sizes.most_rows, r.row_end), frame, min(frame + sizes.most_frames, r.frame_end))
        for row in range(r.row_begin, r.row_end, sizes.most_rows)
        for frame in range(r.frame_begin, r.frame_end, sizes.most_frames)
    ]


def _in_rounds(rectangles: list[Rectangle], num_rows: int) -> list[list[Rectangle]]:
    """Rectangles in groups without a common row."""
    depth = np.zeros(num_rows, dtype=np.int64)
    rounds: list[list[Rectangle]] = []
    for r in sorted(rectangles):
        place = int(depth[r.row_begin : r.row_end].max())
        depth[r.row_begin : r.row_end] = place + 1
        if place == len(rounds):
            rounds.append([])
        rounds[place].append(r)
    return rounds


def make_tiling(plan: CrossPlan) -> Tiling:
    """Covers the plan by rectangles and lays out the calls."""
    alone: list[Rectangle] = []
    shared: list[Rectangle] = []
    for rectangle in cover(plan.begin, plan.end, plan.bounds, long_run=SIZES.rows):
        own, rest = _split(rectangle, plan.tokens_per_frame, SIZES)
        alone += own
        shared += [piece for r in rest for piece in _pieces(r, SIZES)]
    rounds = _in_rounds(shared, plan.num_rows)
    laid = [r for group in rounds for r in group]
    rows = np.concatenate([np.arange(r.row_begin, r.row_end) for r in laid]) if laid else np.zeros(0, dtype=np.int64)
    frames = np.concatenate([np.arange(r.frame_begin, r.frame_end) for r in laid]) if laid else np.zeros(0, dtype=np.int64)
    row_counts, frame_counts = [r.rows for r in laid], [r.frames for r in laid]
    bounds = [np.cumsum([0, *counts], dtype=np.int32) for counts in (row_counts, frame_counts)]
    on_device = upload([rows, frames, *bounds], plan.device)
    ends = list(accumulate((sum(r.rows for r in group) for group in rounds), initial=0))
    return Tiling(
        alone=alone,
        rows=on_device[0],
        frames=on_device[1],
        row_counts=row_counts,
        frame_counts=frame_counts,
        cu_rows=on_device[2],
        cu_frames=on_device[3],
        rounds=list(pairwise(ends)),
    )
