"""The two attention cores as plain functions of tensors and a plan."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention.plan import CrossBlock, RowPlan


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
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
    mixed = [attend(q[a:b], k[a:b], v[a:b], causal=True) for a, b in plan.segments]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


def _frame_mask(block: CrossBlock, tokens_per_frame: int) -> Tensor | None:
    if block.mask is None:
        return None
    rows, frames = block.mask.shape
    return block.mask[:, :, None].expand(rows, frames, tokens_per_frame).reshape(1, 1, rows, frames * tokens_per_frame)


def _attend_with_lse(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """As `attend`, with the logarithm of every softmax's denominator, fp32 [rows, heads]."""
    k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q, k).float() * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores.masked_fill(~mask[0], float("-inf"))
    lse = scores.logsumexp(-1)
    weights = (scores - lse[..., None]).exp().to(v.dtype)
    return torch.einsum("hnm,mhd->nhd", weights, v).flatten(1), lse.transpose(0, 1)


def cross_attention_with_lse(q: Tensor, k: Tensor, v: Tensor, plan: RowPlan) -> tuple[Tensor, Tensor]:
    """As `cross_attention`, with the log-sum of every row's exponentiated scores.

    Returns:
        [T, heads * d], and fp32 [T, heads], -inf for rows that attend to no frame; both differentiable.
    """
    out = q.new_zeros(q.shape[0], q.shape[1] * q.shape[2])
    lse = torch.full(q.shape[:2], -torch.inf, dtype=torch.float32, device=q.device)
    for block in plan.blocks:
        rows = slice(block.row_begin, block.row_end)
        keys, values = (t[block.frame_begin : block.frame_end].flatten(0, 1) for t in (k, v))
        some, sums = _attend_with_lse(q[rows], keys, values, _frame_mask(block, k.shape[1]))
        index = torch.arange(block.row_begin, block.row_end, device=q.device)
        out, lse = out.index_copy(0, index, some), lse.index_copy(0, index, sums)
    return out, lse


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
        parts.append(attend(rows, keys, values, causal=False, mask=_frame_mask(block, k.shape[1])))
        done = block.row_end
    if done < plan.num_rows:
        parts.append(q.new_zeros(plan.num_rows - done, q.shape[1] * q.shape[2]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)
