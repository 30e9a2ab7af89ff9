"""What lies between the matrix products of a layer: as separate operations that a compiler fuses, or as kernels of our own.

Both have the published modules' order of operations; the kernels also round where these would, which a compiler does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.kernels.gelu_product import traced_gelu_product
from inference.kernels.vision_rows import traced_add_norm, traced_gelu_rows, traced_round_rows
from inference.vision.products import Matrix, Operand, bare_product, multiply, operand


class Norm(NamedTuple):
    """A LayerNorm's parameters, [D] each."""

    weight: Tensor
    bias: Tensor


def layer_norm(x: Tensor, norm: Norm, eps: float) -> Tensor:
    """[..., D] -> [..., D]"""
    return F.layer_norm(x, norm.weight.shape, norm.weight, norm.bias, eps)


class Between(NamedTuple):
    """The steps of a layer around its attention."""

    enter: Callable[[Tensor, bool], Operand]
    """Rows for a product, in fp8 or not."""
    add_norm: Callable[[Tensor, Operand, Matrix, Tensor, Norm, float, bool], tuple[Tensor, Operand]]
    """(state, rows, matrix, gate, norm, eps, fp8) -> (state + gate * product, its norm, in fp8 or not)."""
    up: Callable[[Operand, Matrix, torch.dtype, bool], Operand]
    """The MLP's first half: (rows, matrix, dtype, fp8) -> gelu of their product in `dtype`, rounded to fp8 or not."""


def _enter(x: Tensor, fp8: bool) -> Operand:
    return operand(x, fp8=fp8)


def _add_norm(
    x: Tensor, rows: Operand, matrix: Matrix, gate: Tensor, norm: Norm, eps: float, fp8: bool
) -> tuple[Tensor, Operand]:
    x = x + gate * multiply(rows, matrix, x.dtype)
    return x, operand(layer_norm(x, norm, eps), fp8=fp8)


def _up(rows: Operand, matrix: Matrix, dtype: torch.dtype, fp8: bool) -> Operand:
    return operand(F.gelu(multiply(rows, matrix, dtype)), fp8=fp8)


def _fused_enter(x: Tensor, fp8: bool) -> Operand:
    return Operand(*traced_round_rows(x)) if fp8 else Operand(x)


def _fused_add_norm(
    x: Tensor, rows: Operand, matrix: Matrix, gate: Tensor, norm: Norm, eps: float, fp8: bool
) -> tuple[Tensor, Operand]:
    y, bias = bare_product(rows, matrix, x.dtype)
    total, normed, scale = traced_add_norm(x, y, bias, gate, norm.weight, norm.bias, eps, fp8)
    return total, Operand(normed, scale if fp8 else None)


def _fused_up(rows: Operand, matrix: Matrix, dtype: torch.dtype, fp8: bool) -> Operand:
    y, bias = bare_product(rows, matrix, dtype)
    inner, scale = traced_gelu_rows(y, bias, fp8)
    return Operand(inner, scale if fp8 else None)


SEPARATE = Between(_enter, _add_norm, _up)
FUSED = Between(_fused_enter, _fused_add_norm, _fused_up)


def with_joint_gelu(between: Between) -> Between:
    """The same with gelu inside the product before it, where weights are not in fp8."""

    def up(rows: Operand, matrix: Matrix, dtype: torch.dtype, fp8: bool) -> Operand:
        if matrix.scale is not None or matrix.bias is None:
            return between.up(rows, matrix, dtype, fp8)
        return Operand(traced_gelu_product(rows.rows, matrix.weight, matrix.bias))

    return between._replace(up=up)
