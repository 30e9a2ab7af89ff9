"""FlashAttention 2, where the package flash-attn is installed."""

from __future__ import annotations

import importlib.util

import torch
from torch import Tensor


def problem(device: torch.device) -> str | None:
    """Why it cannot be tried; None if it can."""
    if device.type != "cuda":
        return "flash-attn runs on CUDA devices only"
    try:
        found = importlib.util.find_spec("flash_attn.flash_attn_interface") is not None
    except ImportError:
        found = False
    return None if found else "flash-attn 2 is not installed (pip install flash-attn)"


def forward(qkv: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """qkv [F, T, 3, heads, d] -> mixed [F, T, heads, d]; logsumexp [F, heads, T]."""
    from flash_attn.flash_attn_interface import (  # type: ignore[import-not-found, unused-ignore]
        _wrapped_flash_attn_forward,
    )

    out, sums, _, _ = _wrapped_flash_attn_forward(
        *qkv.unbind(2), 0.0, qkv.shape[-1] ** -0.5, causal=False, window_size_left=-1, window_size_right=-1, softcap=0.0,
        alibi_slopes=None, return_softmax=False,
    )  # fmt: skip
    return out, (sums,)


def backward(dmixed: Tensor, qkv: Tensor, mixed: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """Gradient of qkv."""
    from flash_attn.flash_attn_interface import (  # type: ignore[import-not-found, unused-ignore]
        _wrapped_flash_attn_backward,
    )

    dqkv = torch.empty_like(qkv)
    _wrapped_flash_attn_backward(
        dmixed.contiguous(), *qkv.unbind(2), mixed, state[0], *dqkv.unbind(2), 0.0, qkv.shape[-1] ** -0.5, False, -1, -1, 0.0,
        None, torch.are_deterministic_algorithms_enabled(), rng_state=None,
    )  # fmt: skip
    return dqkv
