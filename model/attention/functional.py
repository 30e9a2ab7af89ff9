"""The two attention cores as plain functions of tensors and a plan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention.plan import CrossBlock, RowPlan


def _attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool, mask: Tensor | None = None) -> Tensor:
    """q [rows, heads, d], k and v [keys, groups, d] -> [rows, heads * d]; heads of a group share its keys."""
    if mask is not None and q.is_cuda and q.shape[1] != k.shape[1]:
        # The memory-efficient kernel takes a mask but no groups; without it all scores would be kept for the backward pass.
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
    mixed = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None],
        attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return mixed[0].transpose(0, 1).flatten(1)


def self_attention(q: Tensor, k: Tensor, v: Tensor, plan: RowPlan) -> Tensor:
    """Causal attention inside each sample.

    Args:
        q: [T, heads, d], rotated.
        k, v: [T, groups, d]; k rotated.
        plan: samples' segments.

    Returns:
        [T, heads * d].
    """
    mixed = [_attend(q[a:b], k[a:b], v[a:b], causal=True) for a, b in plan.segments]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _frame_mask(block: CrossBlock, tokens_per_frame: int) -> Tensor | None:
    if block.mask is None:
        return None
    rows, frames = block.mask.shape
    return block.mask[:, :, None].expand(rows, frames, tokens_per_frame).reshape(1, 1, rows, frames * tokens_per_frame)


def cross_attention(q: Tensor, k: Tensor, v: Tensor, plan: RowPlan) -> Tensor:
    """Attention from rows to the frames of the plan's blocks.

    Args:
        q: [T, heads, d], normed and rotated.
        k, v: [F, P, groups, d]; k rotated and normed.
        plan: blocks.

    Returns:
        [T, heads * d]; zero for rows that attend to no frame.
    """
    parts: list[Tensor] = []
    done = 0
    for block in plan.blocks:
        if block.row_begin > done:
            parts.append(q.new_zeros(block.row_begin - done, q.shape[1] * q.shape[2]))
        keys, values = (t[block.frame_begin : block.frame_end].flatten(0, 1) for t in (k, v))
        rows = q[block.row_begin : block.row_end]
        parts.append(_attend(rows, keys, values, causal=False, mask=_frame_mask(block, k.shape[1])))
        done = block.row_end
    if done < plan.num_rows:
        parts.append(q.new_zeros(plan.num_rows - done, q.shape[1] * q.shape[2]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
