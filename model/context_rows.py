"""Context parallelism over packed rows: padding that makes them divide, and which rows each rank takes.

Under causal attention late rows have more to look at than early ones. Every sample is therefore cut into 2 * size equal
chunks, and rank k takes chunk k and chunk 2 * size - 1 - k of each: all ranks have the same work. It is also the order
that Transformer Engine's ring attention expects of packed sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.errors import InputError
from model.rows import IGNORE_INDEX, PackedRows
from model.upload import upload

Ints = NDArray[np.int64]


def zigzag_rows(cu_seqlens: Ints, size: int, rank: int) -> Ints:
    """Rows of one rank, int64 [T / size], in the order of the samples and ascending inside each.

    Args:
        cu_seqlens: bounds of the samples, [N + 1], rising from 0 to T.
        size: number of context-parallel ranks.
        rank: which of them.

    Raises:
        InputError: a sample whose rows cannot be cut into 2 * size equal chunks.
    """
    parts = [np.empty(0, dtype=np.int64)]
    for sample, (first, last) in enumerate(pairwise(cu_seqlens.tolist())):
        chunk, rest = divmod(last - first, 2 * size)
        if rest:
            raise InputError(
                f"sample {sample} of the micro-batch has {last - first} rows, not a multiple of {2 * size} "
                f"(2 x parallel.context {size}); pad the micro-batch with model.context_rows.share_rows"
            )
        for place in (rank, 2 * size - 1 - rank):
            parts.append(np.arange(first + place * chunk, first + (place + 1) * chunk, dtype=np.int64))
    return np.concatenate(parts)


def rows_by_rank(cu_seqlens: Ints, size: int) -> Ints:
    """The rows of all ranks behind each other, int64 [T]: the order in which a gather over the ranks lays them."""
    return np.concatenate([zigzag_rows(cu_seqlens, size, rank) for rank in range(size)])


@dataclass(frozen=True)
class RowShare:
    """A micro-batch as the decoder is handed it, and which of the given rows are this rank's."""

    rows: PackedRows
    """The same on every rank; padded under context parallelism."""
    targets: Tensor | None
    """int64 [rows of this rank], their targets; None if the rows have none."""
    origin: Tensor | None = None
    """int64 [rows of this rank], on the host: index of each in the micro-batch as it was given, -1 for padding.
    None: all, in order."""
    places: Tensor | None = None
    """int64 [T as given], on the host: where each given row lies in `rows`. None: the same place."""

    def take(self, values: Tensor, fill: int) -> Tensor:
        """This rank's part of a value by row on the host, [T as given] -> [rows of this rank]; padding rows get `fill`."""
        if self.origin is None:
            return values
        return values[self.origin.clamp(min=0)].masked_fill(self.origin < 0, fill)


def share_rows(batches: Sequence[PackedRows], size: int, rank: int, multiple: int = 1) -> list[RowShare]:
    """Prepare the micro-batches of one schedule for context parallelism; with `size` 1 they stay as they are.

    Each sample is padded behind its rows to a multiple of 2 * size. All micro-batches end equally long, as the transfers
    between pipeline stages need it: what is missing to the longest is padding of its own. Padding rows have no target,
    see no frame, and no other row sees them, so they change neither loss nor gradient.

    Args:
        batches: the micro-batches.
        size: number of context-parallel ranks.
        rank: this one.
        multiple: what the rows of each rank must be a multiple of: the tensor-parallel size under sequence parallelism,
            what matrix products in fp8 take.
    """
    if size == 1:
        return [RowShare(rows, rows.targets) for rows in batches]
    unit = math.lcm(2 * size, multiple * size)
    bounds = [rows.on_host().cu_seqlens.numpy().astype(np.int64) for rows in batches]
    padded = [-(-np.diff(cu) // (2 * size)) * 2 * size for cu in bounds]
    total = max(-(-int(lengths.sum()) // unit) * unit for lengths in padded)
    return [
        _share(rows, cu, np.append(lengths, total - lengths.sum()), size, rank)
        for rows, cu, lengths in zip(batches, bounds, padded, strict=True)
    ]


def _share(rows: PackedRows, cu: Ints, lengths: Ints, size: int, rank: int) -> RowShare:
    """Lay the samples out with new lengths, on the host; one more length than samples: the padding behind them."""
    device, rows = rows.input_ids.device, rows.on_host()
    new_cu = np.concatenate([[0], np.cumsum(lengths)])
    sample = np.repeat(np.arange(len(lengths)), lengths)  # [T padded]
    within = np.arange(new_cu[-1]) - new_cu[sample]
    real = within < np.append(np.diff(cu), 0)[sample]
    origin = np.where(real, np.append(cu, cu[-1])[sample] + within, -1)
    index = torch.from_numpy(origin)
    padding = index < 0

    def laid(values: Tensor, fill: int) -> Tensor:
        return values[index.clamp(min=0)].masked_fill(padding, fill)

    out = PackedRows(
        input_ids=laid(rows.input_ids, 0),
        position_ids=torch.from_numpy(within),
        cu_seqlens=torch.from_numpy(new_cu.astype(np.int32)),
        cu_frames=torch.cat([rows.cu_frames, rows.cu_frames[-1:]]),
        frame_begin=laid(rows.frame_begin, 0),
        frame_end=laid(rows.frame_end, 0),
        frame_positions=rows.frame_positions,
        targets=None if rows.targets is None else laid(rows.targets, IGNORE_INDEX),
    )
    # Positions of real rows are the given ones, whatever they are; padding continues them.
    out.position_ids = torch.where(padding, out.position_ids, laid(rows.position_ids, 0))
    own = zigzag_rows(new_cu, size, rank)
    targets = None if out.targets is None else upload([out.targets[torch.from_numpy(own)]], device)[0]
    return RowShare(out.to(device), targets, torch.from_numpy(origin[own]), torch.from_numpy(np.flatnonzero(real)))
