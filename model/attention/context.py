"""Attention under context parallelism: each rank has a share of the rows and a share of the frames.

Self-attention gathers keys and values. Cross-attention gathers queries instead, because frames are many more keys than
rows are queries: every rank lets all rows attend to the frames that it holds, and the partial results go back to the
rows' owners, who merge them. The frames' keys and values never leave their rank.

Traffic of one layer, for T rows over c ranks, h heads and g key-value heads of width d on this rank, e bytes a number;
every rank receives, forward:

* self-attention: (c - 1) / c * T * 2 g d e, one all-gather; as much in the backward pass, one reduce-scatter.
* cross-attention: (c - 1) / c * T * h d e for the queries, one all-gather, and (c - 1) / c * T * h (d e + 4) for partial
  results and their log-sums, two all-to-alls; as much in the backward pass, where the all-gather is a reduce-scatter.

Full recomputation repeats the forward traffic. All ranks of the group make the same calls in the same order, whatever
their shares: a rank without a frame too.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from megatron.core.tensor_parallel.mappings import gather_from_sequence_parallel_region
from torch import Tensor
from torch.distributed import ProcessGroup

from model.attention.context_plan import ContextPlan
from model.attention.cross.attention import cross_attention
from model.attention.kernels import attend
from model.errors import InputError


def gather_rows(own: Tensor, group: ProcessGroup) -> Tensor:
    """Rows of this rank [n, ...] -> rows of all ranks behind each other [size * n, ...].

    Every rank uses the result for something of its own, so the gradients of a row add up over the ranks.
    """
    gathered: Tensor = gather_from_sequence_parallel_region(own, True, group)
    return gathered


def restore_order(own: Tensor, context: ContextPlan) -> Tensor:
    """A value by row of this rank [T / size, ...] -> of all rows in their order [T, ...], on every rank."""
    return gather_rows(own, context.group).index_select(0, context.row_places)


def context_self_attention(q: Tensor, k: Tensor, v: Tensor, context: ContextPlan) -> Tensor:
    """Causal attention inside each sample, for the rows of this rank.

    Args:
        q: [T / size, heads, d], rotated.
        k, v: [T / size, groups, d]; k rotated.
        context: blocks of rows and what each attends to.

    Returns:
        [T / size, heads * d].
    """
    keys, values = restore_order(torch.cat([k, v], dim=1), context).chunk(2, dim=1)  # [T, groups, d]
    mixed = [
        attend(q[b.row_begin : b.row_end], keys[b.key_begin : b.key_end], values[b.key_begin : b.key_end], mask=b.mask)
        for b in context.self_blocks
    ]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)


class _Anchor(torch.autograd.Function):
    """Returns the first tensor; in the backward pass the second gets zeros instead of being left out.

    A rank whose frames no row sees would otherwise not take part in the reductions of the others.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, anchor: Tensor) -> Tensor:
        ctx.like = anchor.shape, anchor.dtype, anchor.device
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        shape, dtype, device = ctx.like
        return gradient, torch.zeros(shape, dtype=dtype, device=device)


class _ToOwners(torch.autograd.Function):
    """Partial results of all rows [size * n, ...] -> results of this rank's rows from every rank, [size * n, ...].

    One function for outputs and log-sums, so that their transfers have one order on every rank, backward too.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, lse: Tensor, group: ProcessGroup) -> tuple[Tensor, Tensor]:
        ctx.group = group
        return _all_to_all(out, group), _all_to_all(lse, group)

    @staticmethod
    def backward(ctx: Any, out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        return _all_to_all(out, ctx.group), _all_to_all(lse, ctx.group), None


def _all_to_all(rows: Tensor, group: ProcessGroup) -> Tensor:
    rows = rows.contiguous()
    received = torch.empty_like(rows)
    dist.all_to_all_single(received, rows, group=group)
    return received


def merge_partial(out: Tensor, lse: Tensor) -> Tensor:
    """Attention over the union of disjoint sets of keys from the attention over each: the sum of exp(lse_p - lse) out_p.

    Args:
        out: [parts, T, heads, d].
        lse: fp32 [parts, T, heads], natural logarithm of the sum of the exponentiated scores; -inf where a row saw no key.

    Returns:
        [T, heads, d] in the dtype of `out`; zero for rows that saw no key in any part.
    """
    top = lse.detach().amax(0)
    weights = (lse - torch.where(top == -torch.inf, 0.0, top)).exp()
    total = weights.sum(0)
    weights = weights / torch.where(total > 0, total, 1.0)
    return (weights[..., None] * out.to(weights.dtype)).sum(0).to(out.dtype)


def context_cross_attention(q: Tensor, k: Tensor, v: Tensor, context: ContextPlan, backend: str = "auto") -> Tensor:
    """Attention from the rows of this rank to the frames of all ranks.

    Args:
        q: [T / size, heads, d], normed and rotated.
        k, v: [frames of this rank, P, groups, d]; k rotated and normed.
        context: who has which rows and frames.
        backend: of `model.attention.cross.attention.cross_attention`, one whose log-sums are differentiable.

    Returns:
        [T / size, heads * d]; zero for rows that attend to no frame.

    Raises:
        InputError: a backend whose log-sums have no gradient, which the merging needs.
    """
    if backend in ("varlen", "dense"):
        raise InputError(
            f"attention.cross is {backend} with parallel.context {context.group.size()}, whose ranks merge partial results by "
            f"log-sums, and {backend} has none with a gradient; use auto, flex or torch"
        )
    everyone = gather_rows(q, context.group)  # [T, heads, d]
    out, lse = cross_attention(everyone, k, v, context.cross, backend=backend, with_lse=True)
    if everyone.requires_grad:
        out = _Anchor.apply(out, everyone)  # type: ignore[no-untyped-call]
    elif (k.requires_grad or v.requires_grad) and not out.requires_grad:
        out.requires_grad_()
    out, lse = _ToOwners.apply(out, lse, context.group)  # type: ignore[no-untyped-call]
    size = context.group.size()
    merged = merge_partial(out.view(size, -1, *q.shape[1:]), lse.view(size, -1, q.shape[1]))
    return merged.flatten(1)
