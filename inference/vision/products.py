"""Matrix products of the tower: in the weights' dtype, or in fp8 with one scale for each row of either side."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

E4M3_MAX = 448.0
"""Largest finite value of float8_e4m3fn."""


class Matrix(NamedTuple):
    """A linear map. Plain tensors in a tuple, so that one compiled layer serves all layers."""

    weight: Tensor
    """[out, in]; float8_e4m3fn where `scale` is given."""
    bias: Tensor | None = None
    """[out]"""
    scale: Tensor | None = None
    """fp32 [1, out]: what a row of an fp8 weight is to be multiplied with."""

    @property
    def num_bytes(self) -> int:
        """Bytes of weight, bias and scales."""
        return sum(t.numel() * t.element_size() for t in self if t is not None)


def quantise_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """[..., n] -> (float8_e4m3fn of the same shape, fp32 [..., 1]), whose product is x.

    Off by at most 2^-4 of each value, or 2^-10 / 448 of its row's largest where that is more. A row of zeros stays zero.
    """
    scale = x.detach().abs().amax(-1, keepdim=True).float().clamp_min(1e-12) / E4M3_MAX
    return (x.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale


def fp8_matrix(weight: Tensor, bias: Tensor | None = None) -> Matrix:
    """A linear map with its weight [out, in] in fp8, one scale a row."""
    rounded, scale = quantise_rows(weight)
    return Matrix(rounded, bias, scale.view(1, -1))


def product(x: Tensor, matrix: Matrix) -> Tensor:
    """[..., in] -> [..., out] in the dtype of x.

    In fp8 the rows of x get their scales here. On CUDA the product is one of 8-bit numbers with fp32 sums; elsewhere the same
    rounded numbers are multiplied in the dtype of x, which shows the effect of the rounding.
    """
    if matrix.scale is None:
        return F.linear(x, matrix.weight, matrix.bias)
    rows, scale = quantise_rows(x)
    if x.is_cuda:
        flat = torch._scaled_mm(
            rows.flatten(0, -2),
            matrix.weight.t(),
            scale.flatten(0, -2),
            matrix.scale,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        # The bias is left to the kernel that follows (gelu, or residual and norm).
        y = flat.view(*x.shape[:-1], -1).to(x.dtype)
    else:
        y = (F.linear(rows.to(x.dtype), matrix.weight.to(x.dtype)) * (scale * matrix.scale)).to(x.dtype)
    return y if matrix.bias is None else y + matrix.bias
