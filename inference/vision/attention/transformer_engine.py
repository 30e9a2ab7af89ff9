"""Transformer Engine's fused attention, where it is installed. It cannot be traced: layers are then compiled in two halves."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import Tensor

TRACEABLE = False


def problem(device_type: str) -> str | None:
    """Why it cannot be used; None if it can."""
    from model.fp8 import transformer_engine_problem

    return "Transformer Engine runs on CUDA devices only" if device_type != "cuda" else transformer_engine_problem()


@cache
def _module(heads: int, width: int) -> Any:
    import transformer_engine.pytorch as te

    return te.DotProductAttention(heads, width, attention_dropout=0.0, qkv_format="bshd", attn_mask_type="no_mask").eval()


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q [F, heads, T, d], k and v [F, heads, S, d] in bf16 or fp16 -> [F, T, heads * d]."""
    heads, width = q.shape[1], q.shape[3]
    out: Tensor = _module(heads, width)(*(x.transpose(1, 2).contiguous() for x in (q, k, v)))
    return out.reshape(*out.shape[:2], heads * width)
