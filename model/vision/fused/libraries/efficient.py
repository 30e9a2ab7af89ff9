"""torch's memory-efficient attention: fp32 on CUDA too."""

from __future__ import annotations

import torch
from torch import Tensor

from model.vision.fused.libraries.operators import heads_first, joined, tokens_first

aten = torch.ops.aten


def problem(device: torch.device) -> str | None:
    """Why it cannot be tried; None if it can."""
    return None if device.type == "cuda" else "it runs on CUDA devices only"


def forward(qkv: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """qkv [F, T, 3, heads, d] -> mixed [F, T, heads, d]; logsumexp [F, heads, T or more] and the state of a random generator."""
    out, sums, seed, offset = aten._scaled_dot_product_efficient_attention(*heads_first(qkv), None, True, 0.0, False)
    return tokens_first(out), (sums, seed, offset)


def backward(dmixed: Tensor, qkv: Tensor, mixed: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """Gradient of qkv."""
    found = aten._scaled_dot_product_efficient_attention_backward(
        dmixed.transpose(1, 2), *heads_first(qkv), None, mixed.transpose(1, 2), *state, 0.0, [True, True, True, False], False
    )
    return joined(*found[:3])
