"""What the libraries that torch wraps as operators share: heads before tokens, in place of tokens before heads."""

from __future__ import annotations

import torch
from torch import Tensor


def heads_first(qkv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """qkv [F, T, 3, heads, d] -> q, k, v [F, heads, T, d], views."""
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    return q, k, v


def tokens_first(out: Tensor) -> Tensor:
    """[F, heads, T, d] -> [F, T, heads, d] without gaps; no copy where the operator laid its result out like its operands."""
    return out.transpose(1, 2).contiguous()


def joined(dq: Tensor, dk: Tensor, dv: Tensor) -> Tensor:
    """Gradients [F, heads, T, d] each -> [F, T, 3, heads, d]."""
    return torch.stack([dq.transpose(1, 2), dk.transpose(1, 2), dv.transpose(1, 2)], dim=2)
