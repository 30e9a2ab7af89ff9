"""What all layers of one step share: which rows belong to which session, and what each may see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from inference.cache.session_cache import SessionCache


@dataclass
class RowGroup:
    """New rows of one session, and the frames that arrive with them."""

    cache: SessionCache
    """Keys and values of the rows before; its counts grow when the step is done."""
    tokens: Sequence[int]
    visible: Sequence[int]
    """Frames that each row sees; never shrinks."""
    frame_states: torch.Tensor | None = None
    """[f, P, H] of the new frames."""
    frame_positions: Sequence[int] = ()
    """Position of each new frame: that of its image token."""

    @property
    def new_frames(self) -> int:
        return 0 if self.frame_states is None else int(self.frame_states.shape[0])


@dataclass
class SelfPart:
    """One session's rows in the self layers."""

    cache: SessionCache
    offset: int
    rows: int
    new_frames: int
    self_limits: torch.Tensor | None
    """int64 [rows] keys that each row sees; None for a single row, which sees all."""


@dataclass
class CrossPart:
    """One session's rows in the cross layers."""

    cache: SessionCache
    offset: int
    """Among the rows that attend."""
    rows: int
    num_frames: int
    """This step's included."""
    limits: torch.Tensor | None
    """int64 [rows] keys that each row sees; None: all."""


@dataclass
class StepPlan:
    """One step over the rows of one or more sessions, N in all."""

    cos: torch.Tensor
    sin: torch.Tensor
    """[N, head_dim] of the rows' positions."""
    query_cos: torch.Tensor
    query_sin: torch.Tensor
    """[rows that attend, head_dim]; 1 and 0 where cross-attention queries stay unrotated."""
    frame_cos: torch.Tensor
    frame_sin: torch.Tensor
    """[f, head_dim] of the new frames' positions."""
    parts: list[SelfPart]
    cross_parts: list[CrossPart]
    """Empty when no row attends to a frame: the cross layers are skipped."""
    attending: torch.Tensor | None
    """int64 indices of the rows that attend to frames; None: all."""
    seeing: torch.Tensor | None
    """int64 indices, among the attending rows, of those that see a frame of their own right; None: all."""


@dataclass
class _Rows:
    positions: list[int] = field(default_factory=list)
    attending: list[int] = field(default_factory=list)
    seeing: list[int] = field(default_factory=list)
    rotated: list[bool] = field(default_factory=list)


def plan_step(
    groups: Sequence[RowGroup],
    rope: tuple[torch.Tensor, torch.Tensor],
    *,
    tokens_per_frame: int,
    attend_all: bool,
    always_rotate: bool,
) -> StepPlan:
    """Lay out a step.

    Args:
        rope: (cos, sin) [positions, head_dim], long enough for every row.
        attend_all: rows without a visible frame attend to every frame of their session, as the reference lets them.
        always_rotate: False leaves the cross-attention queries of groups without new frames unrotated.
    """
    device = rope[0].device
    rows = _Rows()
    parts: list[SelfPart] = []
    cross_parts: list[CrossPart] = []
    for group in groups:
        cache, count, offset = group.cache, len(group.tokens), len(rows.positions)
        begin, total = cache.length, cache.frames + group.new_frames
        limits = None if count == 1 else torch.arange(begin + 1, begin + count + 1, device=device)
        parts.append(SelfPart(cache, offset, count, group.new_frames, limits))
        rows.positions += range(begin, begin + count)
        blind = 0 if group.visible[0] else sum(seen == 0 for seen in group.visible)
        first = 0 if attend_all else blind
        if total == 0 or first == count:
            continue
        seen = [frames or total for frames in group.visible[first:]]
        key_limits = None
        if any(frames != total for frames in seen):
            key_limits = torch.tensor(seen, dtype=torch.int64, device=device) * tokens_per_frame
        cross_parts.append(CrossPart(cache, len(rows.attending), count - first, total, key_limits))
        rows.seeing += range(len(rows.attending) + blind - first, len(rows.attending) + count - first)
        rows.attending += range(offset + first, offset + count)
        rows.rotated += [always_rotate or group.new_frames > 0] * (count - first)
    return _assemble(rows, groups, rope, parts, cross_parts)


def _assemble(
    rows: _Rows,
    groups: Sequence[RowGroup],
    rope: tuple[torch.Tensor, torch.Tensor],
    parts: list[SelfPart],
    cross_parts: list[CrossPart],
) -> StepPlan:
    device = rope[0].device
    if len(parts) == 1:
        begin = rows.positions[0]
        cos, sin = (table[begin : begin + len(rows.positions)] for table in rope)
    else:
        index = torch.tensor(rows.positions, dtype=torch.int64, device=device)
        cos, sin = (table[index] for table in rope)
    attending = seeing = None
    if len(rows.attending) != len(rows.positions):
        attending = torch.tensor(rows.attending, dtype=torch.int64, device=device)
    if len(rows.seeing) != len(rows.attending):
        seeing = torch.tensor(rows.seeing, dtype=torch.int64, device=device)
    query_cos, query_sin = (cos, sin) if attending is None else (cos[attending], sin[attending])
    if not all(rows.rotated):
        rotated = torch.tensor(rows.rotated, device=device)[:, None]
        query_cos = torch.where(rotated, query_cos, torch.ones_like(query_cos))
        query_sin = torch.where(rotated, query_sin, torch.zeros_like(query_sin))
    frames = torch.tensor([p for group in groups for p in group.frame_positions], dtype=torch.int64, device=device)
    return StepPlan(
        cos=cos,
        sin=sin,
        query_cos=query_cos,
        query_sin=query_sin,
        frame_cos=rope[0][frames] if len(frames) else rope[0][:0],
        frame_sin=rope[1][frames] if len(frames) else rope[1][:0],
        parts=parts,
        cross_parts=cross_parts,
        attending=attending,
        seeing=seeing,
    )
