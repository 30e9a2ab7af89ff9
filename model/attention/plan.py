"""Which rows attend to which rows and frames, worked out on the host once a micro-batch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.distributed import ProcessGroup

from model.attention.context_plan import ContextPlan, clip_ranges, make_context_plan, piece_bounds
from model.attention.cross.blocks import SCORES_PER_BLOCK, Ints
from model.attention.cross.plan import CrossPlan
from model.config import VideoMllamaConfig
from model.context_rows import rows_by_rank, zigzag_rows
from model.errors import InputError
from model.rows import IGNORE_INDEX, PackedRows, frame_share
from model.text.rope import angle_tables, rope_angles, rope_tables
from model.upload import upload


@dataclass(frozen=True)
class RowPlan:
    """Everything the layers need to know about a micro-batch."""

    segments: list[tuple[int, int]]
    """First row and one past the last row of every sample that has rows."""
    cross: CrossPlan
    """Frames that every row attends to."""
    num_rows: int
    rope: tuple[Tensor, Tensor]
    """cos and sin of the rows' positions, each [T, head_dim]."""
    angles: Tensor
    """fp32 [T, head_dim], of which `rope` are cosine and sine: what fused kernels take."""
    frame_rope: tuple[Tensor, Tensor]
    """cos and sin of the frames' positions, each [F, head_dim]."""
    visible: Tensor | None
    """[T, 1, 1] in the activations' dtype, 1 for a row that sees a frame, else 0; None if every row sees one."""
    target_rows: Tensor | None
    """int64, the rows with a target; None if all have one or there are no targets."""
    context: ContextPlan | None = None
    """Under context parallelism: who has which rows and frames. `cross` is empty then, `segments` is of all rows, and the
    rest is of this rank's rows and frames."""

    @property
    def attends(self) -> bool:
        """Whether any row, on whatever rank, attends to a frame."""
        return self.cross.attends if self.context is None else self.context.attends


def effective_ranges(
    cu_seqlens: Ints, cu_frames: Ints, frame_begin: Ints, frame_end: Ints, attend_all: bool
) -> tuple[Ints, Ints]:
    """Frames that every row really attends to, [begin, end); empty for a row that attends to none.

    Args:
        cu_seqlens, cu_frames: bounds of the samples' rows and frames, [N + 1].
        frame_begin, frame_end: range of frames of every row, [T].
        attend_all: rows without a visible frame attend to all frames of their sample (the reference's behaviour).

    Raises:
        InputError: a row names frames of another sample.
    """
    begins, ends = frame_begin.copy(), frame_end.copy()
    for sample in range(len(cu_seqlens) - 1):
        first, last = int(cu_seqlens[sample]), int(cu_seqlens[sample + 1])
        low, high = int(cu_frames[sample]), int(cu_frames[sample + 1])
        begin, end = begins[first:last], ends[first:last]
        seeing = end > begin
        if seeing.any() and (begin[seeing].min() < low or end[seeing].max() > high):
            raise InputError(
                f"sample {sample} of the micro-batch owns the frames {low}..{high - 1}, but its rows name frames "
                f"{int(begin[seeing].min())}..{int(end[seeing].max()) - 1}; frame_begin and frame_end must stay inside the sample"
            )
        if attend_all:
            begin[~seeing], end[~seeing] = low, high
    return begins, ends


def _ints(tensor: Tensor) -> Ints:
    """Of a tensor on the host."""
    return tensor.numpy().astype(np.int64)


def make_plan(rows: PackedRows, config: VideoMllamaConfig, dtype: torch.dtype, group: ProcessGroup | None = None) -> RowPlan:
    """The plan of a micro-batch; kept in `rows.cache`, so that every chunk of the pipeline shares it.

    It is worked out from the rows on the host. Where they came to the device from there, nobody waits for the device.

    Args:
        rows: the same on every rank.
        config: the model.
        dtype: of the activations.
        group: ranks among which rows and frames are spread; None or one rank: all are here.

    Raises:
        InputError: bounds that do not fit the rows or frames, or samples that do not divide among the ranks.
    """
    group = None if group is None or group.size() == 1 else group
    key = ("plan", config, dtype, group)
    if key not in rows.cache:
        rows.cache[key] = _make_plan(rows, config, dtype, group)
    plan: RowPlan = rows.cache[key]
    return plan


def _make_plan(rows: PackedRows, config: VideoMllamaConfig, dtype: torch.dtype, group: ProcessGroup | None) -> RowPlan:
    device, rows = rows.input_ids.device, rows.on_host()
    cu_seqlens, cu_frames = _ints(rows.cu_seqlens), _ints(rows.cu_frames)
    for name, bounds, total in (("cu_seqlens", cu_seqlens, rows.num_rows), ("cu_frames", cu_frames, rows.num_frames)):
        if len(bounds) < 2 or bounds[0] != 0 or bounds[-1] != total or (np.diff(bounds) < 0).any():
            raise InputError(f"{name} is {bounds.tolist()}; it must rise from 0 to {total}")
    tokens_per_frame = config.vision.tokens_per_frame
    attend_all = config.switches.no_visible_rows == "attend_all"
    begin, end = effective_ranges(cu_seqlens, cu_frames, _ints(rows.frame_begin), _ints(rows.frame_end), attend_all)
    if group is None:
        cross = CrossPlan(begin, end, cu_seqlens, rows.num_frames, tokens_per_frame, device)
        return _plan_of(rows, config, dtype, cross, device)
    size, rank = group.size(), group.rank()
    order = rows_by_rank(cu_seqlens, size)
    low, high = frame_share(rows.num_frames, size, rank)
    clipped, bounds = clip_ranges(begin[order], end[order], low, high), piece_bounds(cu_seqlens, size)
    own = torch.from_numpy(zigzag_rows(cu_seqlens, size, rank))
    share = replace(
        rows, position_ids=rows.position_ids[own], frame_begin=rows.frame_begin[own], frame_end=rows.frame_end[own],
        frame_positions=rows.frame_positions[low:high], targets=None if rows.targets is None else rows.targets[own],
    )  # fmt: skip
    nothing = np.zeros(0, dtype=np.int64)
    cross = CrossPlan(nothing, nothing, nothing[:1], 0, tokens_per_frame, device)
    plan = _plan_of(share, config, dtype, cross, device)
    everyone = CrossPlan(*clipped, bounds, high - low, tokens_per_frame, device)
    attends = bool((end > begin).any())
    return replace(plan, context=make_context_plan(cu_seqlens, group, everyone, attends, SCORES_PER_BLOCK, device))


def _target_rows(targets: Tensor | None) -> Tensor | None:
    """As `RowPlan.target_rows`, of targets [T] on the host."""
    if targets is None:
        return None
    wanted = (targets != IGNORE_INDEX).nonzero().flatten()
    # A micro-batch without targets keeps one ignored row: the head is never called on an empty tensor.
    return None if len(wanted) == len(targets) else wanted if len(wanted) else wanted.new_zeros(1)


def _plan_of(
    rows: PackedRows, config: VideoMllamaConfig, dtype: torch.dtype, cross: CrossPlan, device: torch.device
) -> RowPlan:  # fmt: skip
    """The plan of rows on the host, with its tensors on the device."""
    inverse_dtype, seeing = config.switches.rope_inv_freq_dtype, rows.frame_end > rows.frame_begin
    wanted = _target_rows(rows.targets)
    given = [rows.position_ids, rows.frame_positions, seeing]
    positions, frame_positions, visible, *target_rows = upload(given if wanted is None else [*given, wanted], device)
    angles = rope_angles(config.text, positions, inverse_dtype)
    return RowPlan(
        segments=[(int(a), int(b)) for a, b in pairwise(_ints(rows.cu_seqlens)) if b > a],
        cross=cross,
        num_rows=len(positions),
        rope=angle_tables(angles, dtype),
        angles=angles,
        frame_rope=rope_tables(config.text, frame_positions, inverse_dtype, dtype),
        visible=None if bool(seeing.all()) else visible.to(dtype).view(-1, 1, 1),
        target_rows=target_rows[0] if target_rows else None,
    )
