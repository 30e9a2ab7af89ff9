"""FlashAttention 4, where the package flash-attn-4 is installed: whole frames; keys that count several times go to our kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from inference.vision.attention import triton
from model.attention.cross import flash

TRACEABLE = True
TAKES_COUNTS = True


def problem(device_type: str) -> str | None:
    """Why it cannot be used; None if it can."""
    if device_type != "cuda":
        return "flash-attn-4 runs on CUDA devices only"
    if not flash.available(torch.device(device_type)):
        return "flash-attn-4 is not installed (pip install flash-attn-4), or the GPU is no Hopper (compute capability 9)"
    return triton.problem(device_type)


def attend(q: Tensor, k: Tensor, v: Tensor, log2_counts: Tensor | None = None) -> Tensor:
    """q [F, heads, T, d], k and v [F, heads, S, d] in bf16 or fp16, how often keys count fp32 [S] -> [F, T, heads * d]."""
    if log2_counts is not None:
        return triton.attend(q, k, v, log2_counts)
    out: Tensor = _traced(q, k, v)
    return out


@torch.library.custom_op("moss_inference::flash_attention_4", mutates_args=())
def _traced(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """One node of a traced graph."""
    from flash_attn.cute import flash_attn_func

    found = flash_attn_func(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    out: Tensor = found[0] if isinstance(found, tuple) else found
    return out.flatten(2)


@_traced.register_fake
def _shape(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1] * q.shape[3])
