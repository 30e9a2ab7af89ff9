"""What lies between the vision tower's products, in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

E4M3_MAX = 448.0
"""Largest finite value of float8_e4m3fn."""


def round_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `inference.kernels.vision_rows.round_rows`."""
    # A division by 448 is one on a CPU, and this product on a GPU: half of all scales would differ in their last bit.
    scale = x.detach().abs().amax(-1, keepdim=True).float().clamp_min(1e-12) * (1 / E4M3_MAX)
    return (x.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale


def _finished(x: torch.Tensor, rounded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return round_rows(x) if rounded else (x, torch.empty(0, device=x.device))


def add_norm(
    x: torch.Tensor,
    y: torch.Tensor,
    bias: torch.Tensor | None,
    gate: torch.Tensor,
    weight: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    rounded: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `inference.kernels.vision_rows.add_norm`."""
    total = x + gate * (y if bias is None else y + bias)
    return total, *_finished(F.layer_norm(total, weight.shape, weight, shift, eps), rounded)


def gelu_rows(y: torch.Tensor, bias: torch.Tensor | None, rounded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """As `inference.kernels.vision_rows.gelu_rows`."""
    return _finished(F.gelu(y if bias is None else y + bias), rounded)
