"""cuDNN's fused attention, as torch's operator."""

from __future__ import annotations

import torch
from torch import Tensor

from model.vision.fused.libraries.operators import heads_first, joined, tokens_first

aten = torch.ops.aten


def problem(device: torch.device) -> str | None:
    """Why it cannot be tried; None if it can."""
    if device.type != "cuda":
        return "cuDNN runs on CUDA devices only"
    return None if torch.backends.cudnn.is_available() else "this build of torch has no cuDNN"


def forward(qkv: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """qkv [F, T, 3, heads, d] -> mixed [F, T, heads, d]; logsumexp [F, heads, T, 1] and the state of a random generator."""
    found = aten._scaled_dot_product_cudnn_attention(*heads_first(qkv), None, True, 0.0, False, False)
    return tokens_first(found[0]), (found[1], found[6], found[7])


def backward(dmixed: Tensor, qkv: Tensor, mixed: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """Gradient of qkv."""
    sums, seed, offset = state
    tokens = qkv.shape[1]
    found = aten._scaled_dot_product_cudnn_attention_backward(
        dmixed.transpose(1, 2), *heads_first(qkv), mixed.transpose(1, 2), sums, seed, offset, None, None, None, tokens, tokens,
        0.0, False,
    )  # fmt: skip
    return joined(*found)
