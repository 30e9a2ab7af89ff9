"""The flash-attn package, where it is installed."""

from __future__ import annotations

import importlib.util

from torch import Tensor

TRACEABLE = True


def problem(device_type: str) -> str | None:
    """Why it cannot be used; None if it can."""
    if device_type != "cuda":
        return "flash-attn runs on CUDA devices only"
    if importlib.util.find_spec("flash_attn") is None:
        return "flash-attn is not installed (pip install flash-attn)"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q [F, heads, T, d], k and v [F, heads, S, d] in bf16 or fp16 -> [F, T, heads * d]."""
    from flash_attn import flash_attn_func

    out: Tensor = flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.flatten(2)
