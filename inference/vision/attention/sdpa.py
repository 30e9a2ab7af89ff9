"""torch's scaled_dot_product_attention with the kernel of its own choice: the CPU's default, and that of fp32 on CUDA."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

TRACEABLE = True


def problem(device_type: str) -> str | None:
    """None: it runs everywhere."""
    return None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q [F, heads, T, d], k and v [F, heads, S, d] -> [F, T, heads * d]."""
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
