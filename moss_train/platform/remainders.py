"""An fp32 weight as the bf16 weight that the model computes with and the 16 bits below it, as Transformer Engine stores them."""

from __future__ import annotations

import torch
from torch import Tensor


def whole(weight: Tensor, remainder: Tensor) -> Tensor:
    """The fp32 weight.

    Args:
        weight: bf16.
        remainder: int16 of the same shape; below 0 where the bf16 weight was rounded away from zero.
    """
    upper = weight.view(torch.int16).to(torch.int32) - (remainder < 0).to(torch.int32)
    return ((upper << 16) | (remainder.to(torch.int32) & 0xFFFF)).view(torch.float32)


def split(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest bf16 (halves away from zero) and the remainder of an fp32 weight; `whole` gives it back bit for bit.

    Args:
        weight: fp32, finite.
    """
    bits = weight.view(torch.int32)
    remainder = bits.to(torch.int16)  # wraps: the lower 16 bits
    upper = (bits >> 16) + (remainder < 0).to(torch.int32)
    return upper.to(torch.int16).view(torch.bfloat16), remainder
