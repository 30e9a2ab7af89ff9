"""An exact cover of what rows see by rectangles, rows times frames, in each of which every row sees every frame.

Attention over a rectangle needs no mask. A row whose range is cut by several rectangles gets several partial results,
merged by their log-sums. The cover keeps both the number of rectangles and the number of parts of a row small: a
growing prefix over F frames gives rectangles of halves, quarters, eighths ... of the rows, and log2(F) parts of a row
at most.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from model.attention.cross.blocks import Ints, seeing_runs


@dataclass(frozen=True, order=True)
class Rectangle:
    """Rows [row_begin, row_end) see all of the frames [frame_begin, frame_end)."""

    row_begin: int
    row_end: int
    frame_begin: int
    frame_end: int

    @property
    def rows(self) -> int:
        return self.row_end - self.row_begin

    @property
    def frames(self) -> int:
        return self.frame_end - self.frame_begin

    @property
    def pairs(self) -> int:
        """Rows times frames."""
        return self.rows * self.frames


def _runs(begin: Ints, end: Ints, first: int, last: int) -> list[tuple[int, int, int, int]]:
    """Longest runs of rows with one range inside [first, last): first row, one past the last, and the range."""
    change = np.flatnonzero((np.diff(begin[first:last]) != 0) | (np.diff(end[first:last]) != 0)) + 1
    edges = [first, *(first + change).tolist(), last]
    return [(a, b, int(begin[a]), int(end[a])) for a, b in pairwise(edges)]


def cover(begin: Ints, end: Ints, bounds: Ints, *, long_run: int = 512) -> list[Rectangle]:
    """Rectangles that hold every pair of a row and a frame that it sees exactly once.

    Args:
        begin, end: frames that every row sees, [begin, end); [T] each, in any order.
        bounds: rows that no rectangle crosses, rising from 0 to T: the samples' bounds.
        long_run: a run of at least so many rows with one range is a rectangle of its own.

    Returns:
        The rectangles in ascending order of rows and frames.
    """
    found: list[Rectangle] = []
    for first, last in seeing_runs(begin, end, bounds):
        group: list[tuple[int, int, int, int]] = []
        for run in _runs(begin, end, first, last):
            if run[1] - run[0] >= long_run:
                found.append(Rectangle(*run))
                found += _divide(group)
                group = []
            else:
                group.append(run)
        found += _divide(group)
    return sorted(found)


def _divide(runs: list[tuple[int, int, int, int]]) -> list[Rectangle]:
    """The cover of consecutive runs: what all of them share, if it is most of what they see, then each half of them."""
    found: list[Rectangle] = []
    open_groups = [runs]
    while open_groups:
        group = open_groups.pop()
        if not group:
            continue
        if len(group) == 1:
            found.append(Rectangle(*group[0]))
            continue
        low, high = max(r[2] for r in group), min(r[3] for r in group)
        widest = max(r[3] for r in group) - min(r[2] for r in group)
        if 2 * (high - low) >= widest:
            found.append(Rectangle(group[0][0], group[-1][1], low, high))
            left = [(a, b, c, low) for a, b, c, _ in group]
            right = [(a, b, high, d) for a, b, _, d in group]
            open_groups += [piece for side in (left, right) for piece in _pieces(side)]
            continue
        middle = (group[0][0] + group[-1][1]) / 2
        half = min(range(1, len(group)), key=lambda i: abs(group[i][0] - middle))
        open_groups += [group[:half], group[half:]]
    return found


def _pieces(runs: list[tuple[int, int, int, int]]) -> list[list[tuple[int, int, int, int]]]:
    """Runs with frames left, in groups of consecutive rows; neighbours with the same range become one run."""
    groups: list[list[tuple[int, int, int, int]]] = []
    for run in runs:
        if run[2] >= run[3]:
            continue
        if not groups or groups[-1][-1][1] != run[0]:
            groups.append([run])
        elif groups[-1][-1][2:] == run[2:]:
            groups[-1][-1] = (groups[-1][-1][0], run[1], *run[2:])
        else:
            groups[-1].append(run)
    return groups
