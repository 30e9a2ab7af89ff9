"""What lies between the products of a tower layer, forward and backward, in torch: every dtype, every device.

16-bit rows are computed in fp32. Forward, they are rounded where separate operations round them; backward, once.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """x in fp32, or as it is if it is wider."""
    return x if x.dtype == torch.float64 else x.float()


def norm(x: Tensor, weight: Tensor, shift: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """As `model.vision.fused.rows.norm`."""
    y, mean, rstd = torch.native_layer_norm(wide(x), x.shape[-1:], wide(weight), wide(shift), eps)
    return y.to(x.dtype), mean.flatten(), rstd.flatten()


def norm_again(x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
    """As `model.vision.fused.rows.norm_again`."""
    return ((wide(x) - mean[:, None]) * rstd[:, None] * wide(weight) + wide(shift)).to(x.dtype)


def _biased(y: Tensor, bias: Tensor | None) -> Tensor:
    return y if bias is None else y + bias


def add(x: Tensor, y: Tensor, bias: Tensor | None, gate: Tensor | None) -> Tensor:
    """As `model.vision.fused.rows.add`."""
    y = _biased(y, bias)
    return x + (y if gate is None else gate * y)


def add_norm(
    x: Tensor, y: Tensor, bias: Tensor | None, gate: Tensor | None, weight: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `model.vision.fused.rows.add_norm`."""
    total = add(x, y, bias, gate)
    return total, *norm(total, weight, shift, eps)


def norm_backward(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, dtotal: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `model.vision.fused.rows.norm_backward`."""
    normal = (wide(x) - mean[:, None]) * rstd[:, None]  # [rows, width]
    dnormal = wide(dy) * wide(weight)
    dx = dnormal - dnormal.mean(-1, keepdim=True) - normal * (dnormal * normal).mean(-1, keepdim=True)
    dx = dx * rstd[:, None]
    if dtotal is not None:
        dx = dx + wide(dtotal)
    return dx.to(x.dtype), (wide(dy) * normal).sum(0), wide(dy).sum(0)


def gelu(pre: Tensor, bias: Tensor | None) -> Tensor:
    """As `model.vision.fused.rows.gelu`."""
    return F.gelu(_biased(pre, bias))


def gelu_backward(da: Tensor, pre: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """As `model.vision.fused.rows.gelu_backward`."""
    entry = _biased(pre, bias)
    dpre = torch.ops.aten.gelu_backward(wide(da), wide(entry))
    return dpre.to(pre.dtype), F.gelu(entry), None if bias is None else dpre.sum(0)
