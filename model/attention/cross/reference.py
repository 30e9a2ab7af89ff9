"""Plain torch, block of rows by block of rows: runs anywhere, and is what the other backends are compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.attention.cross.blocks import CrossBlock
from model.attention.cross.plan import CrossPlan
from model.attention.kernels import attend


def _key_mask(block: CrossBlock, tokens_per_frame: int) -> Tensor | None:
    """bool [rows, keys] of the block."""
    return None if block.mask is None else block.mask.repeat_interleave(tokens_per_frame, dim=1)


def torch_cross_attention(q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan) -> Tensor:
    """Shapes and result as `model.attention.cross.attention.cross_attention`, by torch's scaled dot-product attention."""
    parts: list[Tensor] = []
    done = 0
    for block in plan.blocks:
        if block.row_begin > done:
            parts.append(q.new_zeros(block.row_begin - done, q.shape[1] * q.shape[2]))
        keys, values = (t[block.frame_begin : block.frame_end].flatten(0, 1) for t in (k, v))
        mask = _key_mask(block, k.shape[1])
        rows = q[block.row_begin : block.row_end]
        parts.append(attend(rows, keys, values, causal=False, mask=None if mask is None else mask[None, None]))
        done = block.row_end
    if done < plan.num_rows:
        parts.append(q.new_zeros(plan.num_rows - done, q.shape[1] * q.shape[2]))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def at_least_fp32(dtype: torch.dtype) -> torch.dtype:
    """What sums are kept in."""
    return torch.promote_types(dtype, torch.float32)


def _scores(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """q [n, groups, heads of a group, d], k [m, groups, d] -> scaled scores [groups, heads of a group, n, m]."""
    scores: Tensor = torch.einsum("ngrd,mgd->grnm", q, k) * float(q.shape[-1]) ** -0.5
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def attend_forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Attention of rows that all see some key, with the log-sums.

    Args:
        q: [n, heads, d].
        k, v: [m, groups, d].
        mask: bool [n, m], true where the row sees the key; None: everywhere.

    Returns:
        [n, heads, d] in q's dtype, and [n, heads] in fp32 or wider: the natural logarithm of the sum of exp(scaled scores).
    """
    wide, groups = at_least_fp32(q.dtype), k.shape[1]
    scores = _scores(q.to(wide).unflatten(1, (groups, -1)), k.to(wide), mask)
    lse = scores.logsumexp(-1)
    out = torch.einsum("grnm,mgd->ngrd", (scores - lse[..., None]).exp(), v.to(wide))
    return out.flatten(1, 2).to(q.dtype), lse.flatten(0, 1).t()


def attend_backward(
    grad_out: Tensor, grad_lse: Tensor | None, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k, v, in fp32 or wider.

    With p = exp(s - lse): dv = p^T dout, ds = p * (dout v^T - sum(dout * out) + dlse), dq = ds k, dk = ds^T q, both times
    the scale. `out` and `lse` may be of more keys than k and v: then the gradients are this part of the whole.
    """
    wide, groups = at_least_fp32(q.dtype), k.shape[1]
    rows, grad, result = (t.to(wide).unflatten(1, (groups, -1)) for t in (q, grad_out, out))
    keys, values = k.to(wide), v.to(wide)
    by_head = lse.to(wide).t().unflatten(0, (groups, -1))  # [groups, heads of a group, n]
    weights = (_scores(rows, keys, mask) - by_head[..., None]).exp()
    delta = (grad * result).sum(-1)  # [n, groups, heads of a group]
    if grad_lse is not None:
        delta = delta - grad_lse.to(wide).unflatten(1, (groups, -1))
    slope = torch.einsum("ngrd,mgd->grnm", grad, values) - delta.permute(1, 2, 0)[..., None]
    slope = weights * slope * q.shape[-1] ** -0.5
    dq = torch.einsum("grnm,mgd->ngrd", slope, keys).flatten(1, 2)
    return dq, torch.einsum("grnm,ngrd->mgd", slope, rows), torch.einsum("grnm,ngrd->mgd", weights, grad)


class _WithLogSums(torch.autograd.Function):
    """Keeps no scores for the backward pass: they are worked out again, block by block."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan) -> tuple[Tensor, Tensor]:
        out = torch.zeros_like(q)
        lse = q.new_full(q.shape[:2], -torch.inf, dtype=at_least_fp32(q.dtype))
        for block in plan.blocks:
            rows, frames = slice(block.row_begin, block.row_end), slice(block.frame_begin, block.frame_end)
            mask = _key_mask(block, k.shape[1])
            out[rows], lse[rows] = attend_forward(q[rows], k[frames].flatten(0, 1), v[frames].flatten(0, 1), mask)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.plan = plan
        return out, lse

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        q, k, v, out, lse = ctx.saved_tensors
        dq, dk, dv = (torch.zeros_like(t, dtype=at_least_fp32(t.dtype)) for t in (q, k, v))
        for block in ctx.plan.blocks:
            rows, frames = slice(block.row_begin, block.row_end), slice(block.frame_begin, block.frame_end)
            parts = attend_backward(
                grad_out[rows], grad_lse[rows], q[rows], k[frames].flatten(0, 1), v[frames].flatten(0, 1),
                out[rows], lse[rows], _key_mask(block, k.shape[1]),
            )  # fmt: skip
            dq[rows] += parts[0]
            for whole, part in zip((dk, dv), parts[1:], strict=True):
                whole[frames] += part.view_as(whole[frames])
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None


def torch_cross_attention_with_lse(q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan) -> tuple[Tensor, Tensor]:
    """As `torch_cross_attention`, with the log-sums; both are differentiable. All arithmetic is in fp32 or wider."""
    out, lse = _WithLogSums.apply(q, k, v, plan)  # type: ignore[no-untyped-call]
    return out.flatten(1), lse
