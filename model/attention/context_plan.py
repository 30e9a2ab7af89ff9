"""What attention under context parallelism needs to know about a micro-batch, worked out on the host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from model.attention.cross.plan import CrossPlan
from model.context_rows import Ints, rows_by_rank, zigzag_rows
from model.upload import upload


@dataclass(frozen=True)
class SelfBlock:
    """Rows [row_begin, row_end) of this rank look at the keys [key_begin, key_end) of all rows in their order."""

    row_begin: int
    row_end: int
    key_begin: int
    key_end: int
    mask: Tensor
    """bool [rows, keys], true where the row sees the key."""


@dataclass(frozen=True)
class ContextPlan:
    """A micro-batch whose rows and frames are spread over a group of ranks."""

    group: ProcessGroup
    own_rows: Tensor
    """int64 [T / size], the rows of this rank."""
    row_places: Tensor
    """int64 [T]; where each row lies when the rows of all ranks are laid behind each other."""
    self_blocks: list[SelfBlock]
    cross: CrossPlan
    """Cross-attention of all rows, in the order of the ranks, to the frames of this rank."""
    attends: bool
    """Whether any row attends to a frame, of whichever rank."""


def self_blocks(cu_seqlens: Ints, size: int, rank: int, scores: int) -> Iterator[tuple[int, int, int, int]]:
    """Rows and keys of every block of one rank: (row_begin, row_end, key_begin, key_end), the last row sees the last key.

    Args:
        cu_seqlens: bounds of the samples, multiples of 2 * size apart.
        size, rank: of the context-parallel group.
        scores: rows times keys of a block at most; a block has at least 16 rows, or all of its chunk.
    """
    row = 0
    for first, last in pairwise(cu_seqlens.tolist()):
        chunk = (last - first) // (2 * size)
        for place in (rank, 2 * size - 1 - rank):
            step = max(16, scores // max(1, (place + 1) * chunk))
            for begin in range(0, chunk, step):
                end = min(begin + step, chunk)
                yield row + begin, row + end, first, first + place * chunk + end
            row += chunk


def _with_mask(block: tuple[int, int, int, int], device: torch.device) -> SelfBlock:
    row_begin, row_end, key_begin, key_end = block
    rows, keys = row_end - row_begin, key_end - key_begin
    mask = torch.ones(rows, keys, dtype=torch.bool, device=device).tril(keys - rows)
    return SelfBlock(row_begin, row_end, key_begin, key_end, mask)


def clip_ranges(begin: Ints, end: Ints, low: int, high: int) -> tuple[Ints, Ints]:
    """Ranges of frames [begin, end) within the share [low, high), counted from the share's first frame."""
    begin, end = begin.clip(low, high) - low, end.clip(low, high) - low
    return begin, np.maximum(begin, end)


def piece_bounds(cu_seqlens: Ints, size: int) -> Ints:
    """Bounds of the samples' pieces when the rows of all ranks are laid behind each other."""
    return np.concatenate([[0], np.cumsum(np.tile(np.diff(cu_seqlens) // size, size))])


def make_context_plan(
    cu_seqlens: Ints, group: ProcessGroup, cross: CrossPlan, attends: bool, scores: int, device: torch.device
) -> ContextPlan:
    """Puts the parts together; `scores` as in `self_blocks`, the other arguments as the fields of `ContextPlan`."""
    size, rank = group.size(), group.rank()
    order = rows_by_rank(cu_seqlens, size)
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    own_rows, row_places = upload([zigzag_rows(cu_seqlens, size, rank), places], device)
    return ContextPlan(
        group=group,
        own_rows=own_rows,
        row_places=row_places,
        self_blocks=[_with_mask(block, device) for block in self_blocks(cu_seqlens, size, rank, scores)],
        cross=cross,
        attends=attends,
    )
