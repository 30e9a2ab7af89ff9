"""Rounding to float8_e4m3fn with one fp32 factor for each vector along the last axis."""

from __future__ import annotations

import torch

from model.kernels.select import Form, choose_form

FP8 = torch.float8_e4m3fn
LARGEST = 448.0
"""Largest finite float8_e4m3fn."""
SMALLEST = 1e-12
"""Magnitudes below this are taken for it, so that a vector of zeros has a factor."""
_WIDEST = 32768
"""Longer vectors do not fit into the registers of the kernel's program."""


def quantize_rows(x: torch.Tensor, *, form: Form | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each vector along the last axis; its largest magnitude becomes 448. One kernel on a GPU.

    An element's error is at most 1/16 of its magnitude, or 2^-10 of the factor where that is more. A NaN or an
    infinity stays NaN.

    Args:
        x: [..., d], any floating dtype.
        form: overrides the choice by device.

    Returns:
        ([..., d] float8_e4m3fn, [...] fp32): x is about the first times the second.
    """
    if choose_form(x.device, form) == "triton" and x.shape[-1] <= _WIDEST and x.dtype != torch.float64:
        from inference.kernels.triton_forms.quantize import quantize_rows as in_one_pass

        rows = x.reshape(-1, x.shape[-1])
        quantised, factor = in_one_pass(rows if rows.stride(-1) == 1 else rows.contiguous())
        return quantised.view(x.shape), factor.view(x.shape[:-1])
    wide = x.float()
    factor = wide.abs().amax(-1).clamp(min=SMALLEST) / LARGEST
    return (wide / factor[..., None]).to(FP8), factor


def dequantize_rows(quantised: torch.Tensor, factor: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """[..., d] of what `quantize_rows` gave, multiplied in fp32, then rounded to `dtype`."""
    return (quantised.float() * factor[..., None]).to(dtype)
