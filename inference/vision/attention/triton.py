"""Our own kernel: it multiplies heads of 80 as 80 wide, and weighs keys that count several times where others repeat them."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.kernels.vision_attention import COPY_ENGINE, traced_vision_attention
from model.kernels.select import has_triton

TRACEABLE = True
TAKES_COUNTS = True


def problem(device_type: str) -> str | None:
    """Why it cannot be used; None if it can."""
    if device_type != "cuda":
        return "our attention kernel runs on CUDA devices only"
    if not has_triton():
        return "Triton is not installed (pip install triton)"
    if torch.cuda.get_device_capability() < COPY_ENGINE:
        return "our attention kernel needs a GPU of compute capability 9.0 or above"
    return None


def attend(q: Tensor, k: Tensor, v: Tensor, log2_counts: Tensor | None = None) -> Tensor:
    """q [F, heads, T, d], k and v [F, heads, S, d] in bf16 or fp16, how often keys count fp32 [S] -> [F, T, heads * d]."""
    out: Tensor = traced_vision_attention(q, k, v, log2_counts)
    return out
