"""Matrix products of the tower: in the weights' dtype, or in fp8 with one scale for each row of either side."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.kernels.torch_forms.vision_rows import E4M3_MAX, round_rows

__all__ = ["E4M3_MAX", "Matrix", "Operand", "bare_product", "fp8_matrix", "multiply", "operand", "product", "quantise_rows"]


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
    return round_rows(x)


def fp8_matrix(weight: Tensor, bias: Tensor | None = None) -> Matrix:
    """A linear map with its weight [out, in] in fp8, one scale a row."""
    rounded, scale = quantise_rows(weight)
    return Matrix(rounded, bias, scale.view(1, -1))


class Operand(NamedTuple):
    """Rows as a product takes them."""

    rows: Tensor
    """[..., in]; float8_e4m3fn where `scale` is given."""
    scale: Tensor | None = None
    """fp32 [..., 1]"""


def operand(x: Tensor, *, fp8: bool) -> Operand:
    """Rows for a product in the dtype of x or in fp8: rounding is best left to the kernel that makes x."""
    return Operand(*quantise_rows(x)) if fp8 else Operand(x)


def bare_product(x: Operand, matrix: Matrix, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """[..., in] -> [..., out] in `dtype`, and the bias [out] that is still to be added: 16-bit products have it, fp8 ones do not.

    On CUDA an fp8 product is one of 8-bit numbers with fp32 sums; elsewhere the same rounded numbers are multiplied in
    `dtype`, which shows the effect of the rounding.
    """
    if x.scale is None or matrix.scale is None:
        return F.linear(x.rows, matrix.weight, matrix.bias), None
    if x.rows.is_cuda or x.rows.is_meta:  # on the device that computes nothing a call is refused as on a GPU
        flat = torch._scaled_mm(
            x.rows.flatten(0, -2),
            matrix.weight.t(),
            x.scale.flatten(0, -2),
            matrix.scale,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return flat.view(*x.rows.shape[:-1], -1).to(dtype), matrix.bias
    return (F.linear(x.rows.to(dtype), matrix.weight.to(dtype)) * (x.scale * matrix.scale)).to(dtype), matrix.bias


def multiply(x: Operand, matrix: Matrix, dtype: torch.dtype) -> Tensor:
    """[..., in] -> [..., out] in `dtype`, as `bare_product`; a bias is left to the kernel that follows."""
    y, bias = bare_product(x, matrix, dtype)
    return y if bias is None else y + bias


def product(x: Tensor, matrix: Matrix) -> Tensor:
    """[..., in] -> [..., out] in the dtype of x, which is rounded first where the matrix is in fp8."""
    return multiply(operand(x, fp8=matrix.scale is not None), matrix, x.dtype)
