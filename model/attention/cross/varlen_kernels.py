"""Unmasked attention of one rectangle, and of many in one call, forward and backward: on CUDA and in plain torch.

The backward functions take the output and log-sums of *all* keys of a row, while k and v are those of one rectangle:
p = exp(s - lse) and ds = p * (dout v^T - sum(dout * out)) are then the whole row's, restricted to these keys, so the
gradients of the rectangles add up and no gradient flows through the merging of partial results.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from model.attention.cross.reference import attend_backward, attend_forward

Grads = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Lengths:
    """Consecutive segments of rows and of keys; segment i of the rows sees segment i of the keys."""

    cu_rows: Tensor
    """int32 [segments + 1] on the device."""
    cu_keys: Tensor
    rows: list[int]
    """Rows of each segment."""
    keys: list[int]


class TorchKernels:
    """Plain torch, segment by segment."""

    def one(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """q [n, heads, d], k and v [m, groups, d] -> [n, heads, d] and the log-sums [n, heads]."""
        return attend_forward(q, k, v)

    def one_backward(self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> Grads:
        """Gradients of q, k, v."""
        return attend_backward(grad, None, q, k, v, out, lse)

    def many(self, q: Tensor, k: Tensor, v: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """As `one` for each segment."""
        parts = [attend_forward(q[a:b], k[c:d], v[c:d]) for a, b, c, d in _ranges(lengths)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def many_backward(self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, lengths: Lengths) -> Grads:
        """As `one_backward` for each segment."""
        parts = [attend_backward(grad[a:b], None, q[a:b], k[c:d], v[c:d], out[a:b], lse[a:b]) for a, b, c, d in _ranges(lengths)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])


def _ranges(lengths: Lengths) -> list[tuple[int, int, int, int]]:
    rows, keys = pairwise(lengths.cu_rows.tolist()), pairwise(lengths.cu_keys.tolist())
    return [(a, b, c, d) for (a, b), (c, d) in zip(rows, keys, strict=True)]


class CudaKernels:
    """One rectangle by cuDNN, many by torch's flash attention with variable lengths. fp16 and bf16."""

    def one(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As `TorchKernels.one`."""
        q, k, v = (_by_head(t) for t in (q, k, v))
        found = torch.ops.aten._scaled_dot_product_cudnn_attention(
            q, k, v, None, True, 0.0, False, False, scale=q.shape[-1] ** -0.5
        )  # fmt: skip
        return found[0][0].transpose(0, 1), found[1][0, ..., 0].t()

    def one_backward(self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor) -> Grads:
        """As `TorchKernels.one_backward`, in the inputs' dtype."""
        grad, q, k, v, out = (_by_head(t) for t in (grad, q, k, v, out))
        unused = torch.zeros((), dtype=torch.int64, device=q.device)  # state of a dropout that is off
        dq, dk, dv = torch.ops.aten._scaled_dot_product_cudnn_attention_backward(
            grad, q, k, v, out, lse.t().contiguous()[None, ..., None], unused, unused, None, None, None,
            q.shape[2], k.shape[2], 0.0, False, scale=q.shape[-1] ** -0.5,
        )  # fmt: skip
        return dq[0].transpose(0, 1), dk[0].transpose(0, 1), dv[0].transpose(0, 1)

    def many(self, q: Tensor, k: Tensor, v: Tensor, lengths: Lengths) -> tuple[Tensor, Tensor]:
        """As `TorchKernels.many`."""
        out, lse, *_ = torch.ops.aten._flash_attention_forward(
            q, k, v, lengths.cu_rows, lengths.cu_keys, max(lengths.rows), max(lengths.keys), 0.0, False, False,
            scale=q.shape[-1] ** -0.5,
        )  # fmt: skip
        return out, lse.t()

    def many_backward(self, grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, lengths: Lengths) -> Grads:
        """As `TorchKernels.many_backward`, in the inputs' dtype."""
        unused = torch.zeros(2, dtype=torch.uint64, device=q.device)
        dq, dk, dv = torch.ops.aten._flash_attention_backward(
            grad, q, k, v, out, lse.t().contiguous(), lengths.cu_rows, lengths.cu_keys, max(lengths.rows), max(lengths.keys),
            0.0, False, unused, unused, scale=q.shape[-1] ** -0.5,
        )  # fmt: skip
        return dq, dk, dv


def _by_head(rows: Tensor) -> Tensor:
    """[n, heads, d] -> [1, heads, n, d], a view."""
    return rows.transpose(0, 1)[None]
