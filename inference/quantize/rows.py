"""Rounding to float8_e4m3fn with one fp32 factor for each vector along the last axis."""

from __future__ import annotations

import torch

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
"""Largest finite float8_e4m3fn."""
SMALLEST = 1e-12
"""Magnitudes below this are taken for it, so that a vector of zeros has a factor."""


def quantize_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each vector along the last axis; its largest magnitude becomes 448.

    An element's error is at most 1/16 of its magnitude, or 2^-10 of the factor where that is more. A vector that holds NaN or
    infinity becomes NaN.

    Args:
        x: [..., d], any floating dtype.

    Returns:
        ([..., d] float8_e4m3fn, [...] fp32): x is about the first times the second.
    """
    wide = x.float()
    factor = wide.abs().amax(-1).clamp(min=SMALLEST) / LARGEST
    return (wide / factor[..., None]).to(FP8), factor


def dequantize_rows(quantised: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[..., d] of what `quantize_rows` gave, multiplied in fp32, then rounded to `dtype`."""
    return (quantised.float() * factor[..., None]).to(dtype)
