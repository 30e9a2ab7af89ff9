"""Products of rows with a matrix, in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def linear(x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """x [..., in] times weight [out, in]; a scaled product is summed and scaled in fp32, then rounded once."""
    if scale is None:
        return F.linear(x, weight)
    return (F.linear(x.float(), weight.float()) * scale).to(x.dtype)


def swiglu(x: torch.Tensor, gate_up: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """silu(gate) * up, of the two halves of the product."""
    gate, up = linear(x, gate_up, scale).chunk(2, dim=-1)
    return F.silu(gate) * up
