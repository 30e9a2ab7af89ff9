"""FlashAttention 4, where the package flash-attn-4 is installed and the GPU is a Hopper."""

from __future__ import annotations

import torch
from torch import Tensor

from model.attention.cross import flash


def problem(device: torch.device) -> str | None:
    """Why it cannot be tried; None if it can."""
    if flash.available(device):
        return None
    return "flash-attn-4 is not installed (pip install flash-attn-4), or the GPU is no Hopper (compute capability 9)"


def forward(qkv: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """qkv [F, T, 3, heads, d] -> mixed [F, T, heads, d], logsumexp [F, heads, T]."""
    from flash_attn.cute.interface import _flash_attn_fwd  # type: ignore[import-not-found, unused-ignore]

    out, sums = _flash_attn_fwd(*qkv.unbind(2), softmax_scale=qkv.shape[-1] ** -0.5, return_lse=True)[:2]
    return out, (sums,)


def backward(dmixed: Tensor, qkv: Tensor, mixed: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """Gradient of qkv."""
    from flash_attn.cute.interface import _flash_attn_bwd  # type: ignore[import-not-found, unused-ignore]

    dqkv = torch.empty_like(qkv)
    dq, dk, dv = dqkv.unbind(2)
    _flash_attn_bwd(
        *qkv.unbind(2), mixed, dmixed.contiguous(), state[0], qkv.shape[-1] ** -0.5,
        deterministic=torch.are_deterministic_algorithms_enabled(), dq=dq, dk=dk, dv=dv,
    )  # fmt: skip
    return dqkv
