"""Root-mean-square norms in torch, in the order of rounding that the weights were trained with."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Normalise the last axis in fp32, round to the input's dtype, then scale."""
    if x.dtype == torch.float32:
        return F.rms_norm(x, weight.shape, weight, eps)
    return F.rms_norm(x.float(), weight.shape, None, eps).to(x.dtype) * weight


def add_rms_norm(
    residual: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, eps: float, gate: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(residual + gate * x, its norm), each rounded where separate operations would round."""
    if gate is not None:
        x = (gate if gate.numel() == 1 else gate.view(-1, 1)) * x
    total = residual + x
    return total, rms_norm(total, weight, eps)
