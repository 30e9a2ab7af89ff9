"""Which rows attend to which rows and frames, worked out on the host once a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.rows import IGNORE_INDEX, PackedRows
from model.text.rope import rope_tables

SCORES_PER_BLOCK = 1 << 22
"""Rows times keys of one cross-attention call at most: bounds the mask, whatever the length of a sample."""

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


@dataclass(frozen=True)
class RowPlan:
    """Everything the layers need to know about a micro-batch."""

    segments: list[tuple[int, int]]
    """First row and one past the last row of every sample that has rows."""
    blocks: list[CrossBlock]
    """In ascending order of rows; rows in no block attend to no frame."""
    num_rows: int
    rope: tuple[Tensor, Tensor]
    """cos and sin of the rows' positions, each [T, head_dim]."""
    frame_rope: tuple[Tensor, Tensor]
    """cos and sin of the frames' positions, each [F, head_dim]."""
    visible: Tensor | None
    """[T, 1, 1] in the activations' dtype, 1 for a row that sees a frame, else 0; None if every row sees one."""
    target_rows: Tensor | None
    """int64, the rows with a target; None if all have one or there are no targets."""


def _cross_block(begin: Ints, end: Ints, first_row: int, device: torch.device) -> CrossBlock:
    low, high = int(begin.min()), int(end.max())
    mask = None
    if (begin != low).any() or (end != high).any():
        frames = np.arange(low, high)
        mask = torch.from_numpy((begin[:, None] <= frames) & (frames < end[:, None])).to(device)
    return CrossBlock(first_row, first_row + len(begin), low, high, mask)


def plan_cross_blocks(
    cu_seqlens: Ints, cu_frames: Ints, frame_begin: Ints, frame_end: Ints, *,
    tokens_per_frame: int, attend_all: bool, device: torch.device,
) -> list[CrossBlock]:  # fmt: skip
    """Cuts the rows that attend to frames into blocks of one sample each.

    Args:
        cu_seqlens, cu_frames: bounds of the samples' rows and frames, [N + 1].
        frame_begin, frame_end: range of frames of every row, [T].
        tokens_per_frame: keys of a frame; with `SCORES_PER_BLOCK` it bounds the rows of a block.
        attend_all: rows without a visible frame attend to all frames of their sample (the reference's behaviour);
            otherwise they are left out. A sample without frames is always left out.
        device: where the masks go.

    Raises:
        InputError: a row names frames of another sample.
    """
    blocks: list[CrossBlock] = []
    for sample in range(len(cu_seqlens) - 1):
        first, last = int(cu_seqlens[sample]), int(cu_seqlens[sample + 1])
        low, high = int(cu_frames[sample]), int(cu_frames[sample + 1])
        begin, end = frame_begin[first:last].copy(), frame_end[first:last].copy()
        seeing = end > begin
        if seeing.any() and (begin[seeing].min() < low or end[seeing].max() > high):
            raise InputError(
                f"sample {sample} of the micro-batch owns the frames {low}..{high - 1}, but its rows name frames "
                f"{int(begin[seeing].min())}..{int(end[seeing].max()) - 1}; frame_begin and frame_end must stay inside the sample"
            )
        if low == high:
            continue
        if attend_all:
            begin[~seeing], end[~seeing] = low, high
            seeing = np.ones_like(seeing)
        edges = np.flatnonzero(np.diff(np.concatenate([[False], seeing, [False]]).astype(np.int8)))
        for run_first, run_last in zip(edges[::2], edges[1::2], strict=True):
            keys = (int(end[run_first:run_last].max()) - int(begin[run_first:run_last].min())) * tokens_per_frame
            rows = max(16, SCORES_PER_BLOCK // keys)
            for row in range(int(run_first), int(run_last), rows):
                stop = min(row + rows, int(run_last))
                blocks.append(_cross_block(begin[row:stop], end[row:stop], first + row, device))
    return blocks


def _host(tensor: Tensor) -> Ints:
    return tensor.cpu().numpy().astype(np.int64)


def make_plan(rows: PackedRows, config: VideoMllamaConfig, dtype: torch.dtype) -> RowPlan:
    """The plan of a micro-batch; kept in `rows.cache`, so that every chunk of the pipeline shares it.

    Raises:
        InputError: bounds that do not fit the rows or frames.
    """
    key = ("plan", config, dtype)
    if key not in rows.cache:
        rows.cache[key] = _make_plan(rows, config, dtype)
    plan: RowPlan = rows.cache[key]
    return plan


def _make_plan(rows: PackedRows, config: VideoMllamaConfig, dtype: torch.dtype) -> RowPlan:
    cu_seqlens, cu_frames = _host(rows.cu_seqlens), _host(rows.cu_frames)
    frame_begin, frame_end = _host(rows.frame_begin), _host(rows.frame_end)
    for name, bounds, total in (("cu_seqlens", cu_seqlens, rows.num_rows), ("cu_frames", cu_frames, rows.num_frames)):
        if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != total or (np.diff(bounds) < 0).any():
            raise InputError(f"{name} is {bounds.tolist()}; it must rise from 0 to {total}")
    device, switches = rows.input_ids.device, config.switches
    blocks = plan_cross_blocks(
        cu_seqlens, cu_frames, frame_begin, frame_end,
        tokens_per_frame=config.vision.tokens_per_frame, attend_all=switches.no_visible_rows == "attend_all", device=device,
    )  # fmt: skip
    seeing = frame_end > frame_begin
    visible = None if seeing.all() else torch.from_numpy(seeing).to(device=device, dtype=dtype).view(-1, 1, 1)
    target_rows = None
    if rows.targets is not None:
        wanted = (rows.targets != IGNORE_INDEX).nonzero().flatten()
        # A micro-batch without targets keeps one ignored row: the head is never called on an empty tensor.
        target_rows = None if len(wanted) == rows.num_rows else wanted if len(wanted) else wanted.new_zeros(1)
    return RowPlan(
        segments=[(int(a), int(b)) for a, b in pairwise(cu_seqlens) if b > a],
        blocks=blocks,
        num_rows=rows.num_rows,
        rope=rope_tables(config.text, rows.position_ids, switches.rope_inv_freq_dtype, dtype),
        frame_rope=rope_tables(config.text, rows.frame_positions, switches.rope_inv_freq_dtype, dtype),
        visible=visible,
        target_rows=target_rows,
    )
