"""Which tiles of the score matrix are needed, by integer arithmetic on the rows' bounds; [rows, keys] is never built.

A tile is needed whole ("full") if every row of it sees every key of it, in part ("partial") if some row sees some key.
With ranges [b, e) of keys, a tile of rows needs the tiles of keys from floor(min b / n) to ceil(max e / n), and those
from ceil(max b / n) to floor(min e / n) whole. Ranges that do not overlap inside a tile of rows cost tiles in which
nothing is seen; they are masked like partial ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model.attention.cross.blocks import Ints
from model.attention.cross.plan import CrossPlan
from model.upload import upload

Flags = NDArray[np.bool_]
Counts = NDArray[np.int32]


@dataclass(frozen=True)
class TileLists:
    """For each tile of one side, the numbers of its partial and full tiles of the other side; int32, [1, 1, ...]."""

    partial_count: Tensor
    """[1, 1, tiles]"""
    partial_index: Tensor
    """[1, 1, tiles, tiles of the other side]; the first `partial_count` entries count."""
    full_count: Tensor
    full_index: Tensor


def tile_flags(begin: Ints, end: Ints, keys: int, rows_per_tile: int, keys_per_tile: int) -> tuple[Flags, Flags]:
    """Partial and full tiles, bool [tiles of rows, tiles of keys] each.

    Args:
        begin, end: keys that every row sees, [begin, end).
        keys: number of keys.
        rows_per_tile, keys_per_tile: size of a tile; the last ones may be smaller.
    """
    tiles = -(-len(begin) // rows_per_tile)
    pad = tiles * rows_per_tile - len(begin)
    begin, end = (np.pad(x, (0, pad), mode="edge").reshape(tiles, rows_per_tile) for x in (begin, end))
    sees: Flags = np.asarray(end > begin)
    some, every = sees.any(1, keepdims=True), sees.all(1, keepdims=True)
    far = np.iinfo(np.int64).max // 2
    low = np.where(sees, begin, far).min(1) // keys_per_tile
    high = -(-np.where(sees, end, 0).max(1) // keys_per_tile)
    full_low = -(-begin.max(1) // keys_per_tile)
    full_high = end.min(1) // keys_per_tile
    tile = np.arange(-(-keys // keys_per_tile))
    needed = (tile >= low[:, None]) & (tile < high[:, None]) & some
    full = (tile >= full_low[:, None]) & (tile < full_high[:, None]) & every
    return needed & ~full, full


def _lists(flags: Flags) -> tuple[Counts, Counts]:
    """int32 [1, 1, tiles] and [1, 1, tiles, tiles of the other side]."""
    count = flags.sum(1, dtype=np.int32)
    index = np.ascontiguousarray(np.argsort(~flags, axis=1, kind="stable").astype(np.int32))
    return count[None, None], index[None, None]


def tile_lists(plan: CrossPlan, rows_per_tile: int, keys_per_tile: int) -> tuple[TileLists, TileLists]:
    """The lists of every tile of rows, and of every tile of keys; kept in the plan."""

    def make(plan: CrossPlan) -> tuple[TileLists, TileLists]:
        width = plan.tokens_per_frame
        partial, full = tile_flags(plan.begin * width, plan.end * width, plan.num_keys, rows_per_tile, keys_per_tile)
        lists = upload([x for flags in (partial, full, partial.T, full.T) for x in _lists(flags)], plan.device)
        return TileLists(*lists[:4]), TileLists(*lists[4:])

    return plan.derive(("tiles", rows_per_tile, keys_per_tile), make)


def key_bounds(plan: CrossPlan, multiple: int = 128) -> tuple[Tensor, Tensor]:
    """Keys [begin, end) that every row sees, int32 on the plan's device; kept in the plan.

    Rows up to the next `multiple` that do not exist see nothing, so that a kernel may read whole tiles.
    """

    def make(plan: CrossPlan) -> tuple[Tensor, Tensor]:
        rows = -(-plan.num_rows // multiple) * multiple
        bounds = np.zeros((2, rows), dtype=np.int32)
        bounds[0, : plan.num_rows] = plan.begin * plan.tokens_per_frame
        bounds[1, : plan.num_rows] = np.maximum(plan.begin, plan.end) * plan.tokens_per_frame
        begin, end = upload([bounds], plan.device)[0]
        return begin, end

    return plan.derive(("key_bounds", multiple), make)
