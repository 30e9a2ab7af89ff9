"""FlashAttention 4, where the package flash-attn-4 is installed: whole frames; keys that count several times go to our kernel."""

from __future__ import annotations

import importlib.metadata
import importlib.util

import torch
from torch import Tensor

from inference.vision.attention import triton

TRACEABLE = True
TAKES_COUNTS = True
CAPABILITY = 9
"""Major compute capability for which it was measured: Hopper."""


def problem(device_type: str) -> str | None:
    """Why it cannot be used; None if it can."""
    if device_type != "cuda":
        return "flash-attn-4 runs on CUDA devices only"
    try:
        # flash-attn 2 brings a package of the same name without these kernels, or with older ones.
        importlib.metadata.distribution("flash-attn-4")
        found = all(importlib.util.find_spec(name) is not None for name in ("flash_attn.cute", "cutlass.cute"))
    except ImportError:
        found = False
    if not found:
        return "flash-attn-4 is not installed (pip install flash-attn-4)"
    if torch.cuda.get_device_capability()[0] != CAPABILITY:
        return "flash-attn-4 is used on Hopper GPUs (compute capability 9) only"
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
