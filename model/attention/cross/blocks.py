"""Rows cut into blocks of consecutive rows, each over the frames that any of its rows sees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.upload import upload

SCORES_PER_BLOCK = 1 << 22
"""Rows times keys of one call at most: bounds the mask, whatever the length of a sample."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CrossBlock:
    """Rows [row_begin, row_end) look at frames [frame_begin, frame_end), all of them where `mask` is None."""

    row_begin: int
    row_end: int
    frame_begin: int
    frame_end: int
    mask: Tensor | None
    """bool [rows, frames], true where the row sees the frame."""


def _cross_block(begin: Ints, end: Ints, first_row: int, device: torch.device) -> CrossBlock:
    low, high = int(begin.min()), int(end.max())
    mask = None
    if (begin != low).any() or (end != high).any():
        frames = np.arange(low, high)
        mask = upload([(begin[:, None] <= frames) & (frames < end[:, None])], device)[0]
    return CrossBlock(first_row, first_row + len(begin), low, high, mask)


def seeing_runs(begin: Ints, end: Ints, bounds: Ints) -> list[tuple[int, int]]:
    """First row and one past the last of every longest run of rows that see a frame, between two bounds."""
    runs: list[tuple[int, int]] = []
    for first, last in pairwise(bounds.tolist()):
        seeing = end[first:last] > begin[first:last]
        edges = first + np.flatnonzero(np.diff(np.concatenate([[False], seeing, [False]]).astype(np.int8)))
        runs += zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
    return runs


def cut_cross_blocks(begin: Ints, end: Ints, bounds: Ints, *, tokens_per_frame: int, device: torch.device) -> list[CrossBlock]:
    """Cuts the rows that see a frame into blocks, in ascending order.

    Args:
        begin, end: frames that every row sees, [begin, end); [T] each.
        bounds: rows at which a block must end, rising from 0 to T: the samples' bounds.
        tokens_per_frame: keys of a frame; with `SCORES_PER_BLOCK` it bounds the rows of a block.
        device: where the masks go.
    """
    blocks: list[CrossBlock] = []
    for first, last in seeing_runs(begin, end, bounds):
        keys = (int(end[first:last].max()) - int(begin[first:last].min())) * tokens_per_frame
        rows = max(16, SCORES_PER_BLOCK // keys)
        for row in range(first, last, rows):
            stop = min(row + rows, last)
            blocks.append(_cross_block(begin[row:stop], end[row:stop], row, device))
    return blocks
