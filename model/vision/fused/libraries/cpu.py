"""torch's flash attention for the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from model.vision.fused.libraries.operators import heads_first, joined, tokens_first

aten = torch.ops.aten


def problem(device: torch.device) -> str | None:
    """Why it cannot be tried; None if it can."""
    return None if device.type == "cpu" else "it runs on the CPU only"


def forward(qkv: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """qkv [F, T, 3, heads, d] -> mixed [F, T, heads, d], logsumexp [F, heads, T]."""
    out, sums = aten._scaled_dot_product_flash_attention_for_cpu(*heads_first(qkv), 0.0, False)
    return tokens_first(out), (sums,)


def backward(dmixed: Tensor, qkv: Tensor, mixed: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """Gradient of qkv."""
    found = aten._scaled_dot_product_flash_attention_for_cpu_backward(
        dmixed.transpose(1, 2), *heads_first(qkv), mixed.transpose(1, 2), state[0], 0.0, False
    )
    return joined(*found)
