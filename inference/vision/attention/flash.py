"""The flash kernel that torch carries. Called by its own name: no context to enter, so that it can be traced and captured."""

from __future__ import annotations

import torch
from torch import Tensor

TRACEABLE = True


def problem(device_type: str) -> str | None:
    """Why it cannot be used; None if it can."""
    return None if device_type == "cuda" else "torch's flash kernel runs on CUDA devices only"


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q [F, heads, T, d], k and v [F, heads, S, d] in bf16 or fp16 -> [F, T, heads * d]."""
    out: Tensor = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]
    return out.transpose(1, 2).flatten(2)
