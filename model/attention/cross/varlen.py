"""Attention without masks: the ranges are covered by rectangles, and the parts of a row are merged by their log-sums.

Large rectangles are one dense call each. Small ones are gathered into one call with variable lengths, in which the heads
that share keys are laid out as rows: a rectangle of few rows then still fills the kernels' tiles, and gradients of keys
are summed over the heads inside the kernel. Works out its layout once a micro-batch and never waits for the device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from model.attention.cross.plan import CrossPlan
from model.attention.cross.reference import at_least_fp32
from model.attention.cross.tiling import Tiling, make_tiling
from model.attention.cross.varlen_kernels import CudaKernels, Lengths, TorchKernels
from model.errors import InputError


def check(device: torch.device, dtype: torch.dtype) -> None:
    """Refuses queries that the kernels do not take.

    Raises:
        InputError: a GPU with another dtype than fp16 or bf16.
    """
    if device.type == "cuda" and dtype not in (torch.bfloat16, torch.float16):
        raise InputError(f"attention.cross is varlen, whose kernels take bf16, not {dtype}; use auto or precision.dtype=bf16")


def _kernels(q: Tensor) -> CudaKernels | TorchKernels:
    check(q.device, q.dtype)
    return CudaKernels() if q.is_cuda else TorchKernels()


def _lengths(plan: CrossPlan, tiling: Tiling, heads_of_group: int) -> Lengths:
    def make(plan: CrossPlan) -> Lengths:
        width = plan.tokens_per_frame
        return Lengths(
            cu_rows=tiling.cu_rows * heads_of_group,
            cu_keys=tiling.cu_frames * width,
            rows=[n * heads_of_group for n in tiling.row_counts],
            keys=[n * width for n in tiling.frame_counts],
        )

    return plan.derive(("lengths", heads_of_group), make)


def _gather(by_row: Tensor, rows: Tensor, groups: int) -> Tensor:
    """[T, heads, ...] -> chosen rows with the heads of a group behind each other, [rows * heads of a group, groups, ...]."""
    by_place: Tensor = by_row.unflatten(1, (groups, -1)).transpose(1, 2).contiguous()  # [T, heads of a group, groups, ...]
    chosen = by_place.flatten(1).index_select(0, rows)  # whole rows: the fast path of the selection
    return chosen.view(-1, *by_place.shape[2:])


def _frames(by_frame: Tensor, frames: Tensor) -> Tensor:
    """[F, P, groups, d] -> tokens of the chosen frames [frames * P, groups, d]."""
    return by_frame.flatten(1).index_select(0, frames).view(-1, *by_frame.shape[2:])


def _spread(gathered: Tensor, heads_of_group: int) -> Tensor:
    """The inverse layout: [rows * heads of a group, groups, ...] -> [rows, heads, ...]."""
    by_row: Tensor = gathered.unflatten(0, (-1, heads_of_group)).transpose(1, 2)
    return by_row.flatten(1, 2)


class _Varlen(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan) -> tuple[Tensor, Tensor]:
        kernels, tiling, groups = _kernels(q), plan.derive("tiling", make_tiling), k.shape[2]
        wide = at_least_fp32(q.dtype)
        parts: list[tuple[slice | Tensor, Tensor, Tensor]] = []
        for r in tiling.alone:
            rows, frames = slice(r.row_begin, r.row_end), slice(r.frame_begin, r.frame_end)
            parts.append((rows, *kernels.one(q[rows], k[frames].flatten(0, 1), v[frames].flatten(0, 1))))
        if tiling.rounds:
            keys, values = (_frames(t, tiling.frames) for t in (k, v))
            ratio = q.shape[1] // groups
            out, lse = kernels.many(_gather(q, tiling.rows, groups), keys, values, _lengths(plan, tiling, ratio))
            out, lse = _spread(out, ratio), _spread(lse, ratio)
            parts += [(tiling.rows[a:b], out[a:b], lse[a:b]) for a, b in tiling.rounds]
        total = q.new_full(q.shape[:2], -torch.inf, dtype=wide)
        for where, _, lse in parts:
            total[where] = torch.logaddexp(total[where], lse.to(wide))
        merged = torch.zeros_like(q, dtype=wide)
        for where, out, lse in parts:
            weight = (lse - total[where]).exp()[..., None]
            if isinstance(where, slice):
                merged[where].addcmul_(out, weight)
            else:
                merged.index_add_(0, where, out * weight)
        result = merged.to(q.dtype)
        ctx.save_for_backward(q, k, v, result, total)
        ctx.plan = plan
        ctx.mark_non_differentiable(total)
        return result, total

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # type: ignore[override]
        q, k, v, out, lse = ctx.saved_tensors
        plan: CrossPlan = ctx.plan
        kernels, tiling, groups = _kernels(q), plan.derive("tiling", make_tiling), k.shape[2]
        dq, dk, dv = (torch.zeros_like(t, dtype=at_least_fp32(t.dtype)) for t in (q, k, v))
        for r in tiling.alone:
            rows, frames = slice(r.row_begin, r.row_end), slice(r.frame_begin, r.frame_end)
            keys, values = k[frames].flatten(0, 1), v[frames].flatten(0, 1)
            parts = kernels.one_backward(grad[rows], q[rows], keys, values, out[rows], lse[rows])
            dq[rows] += parts[0]
            dk[frames] += parts[1].view_as(k[frames])
            dv[frames] += parts[2].view_as(v[frames])
        if tiling.rounds:
            ratio = q.shape[1] // groups
            keys, values = (_frames(t, tiling.frames) for t in (k, v))
            some = (_gather(t, tiling.rows, groups) for t in (grad, q, out, lse))
            grad_rows, q_rows, out_rows, lse_rows = some
            parts = kernels.many_backward(
                grad_rows, q_rows, keys, values, out_rows, lse_rows, _lengths(plan, tiling, ratio)
            )  # fmt: skip
            dq.index_add_(0, tiling.rows, _spread(parts[0], ratio).to(dq.dtype))
            for whole, part in zip((dk, dv), parts[1:], strict=True):
                whole.index_add_(0, tiling.frames, part.view(-1, *whole.shape[1:]).to(whole.dtype))
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None


def varlen_cross_attention(q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan) -> tuple[Tensor, Tensor]:
    """Shapes and results as `model.attention.cross.attention.cross_attention`; no gradient flows through the log-sums.

    Raises:
        InputError: tensors on a GPU that are not fp16 or bf16.
    """
    out, lse = _Varlen.apply(q, k, v, plan)  # type: ignore[no-untyped-call]
    return out.flatten(1), lse
