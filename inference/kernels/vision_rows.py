"""What lies between the matrix products of the vision tower: each is one pass over memory on a GPU.

All of them can hand their rows over rounded to float8_e4m3fn with one fp32 scale a row, as `round_rows` rounds. `traced_*` are
the same functions as nodes of a graph that torch.compile traces.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from inference.kernels.torch_forms import vision_rows as torch_rows
from model.kernels.select import Form, row_form

if TYPE_CHECKING:
    from model.kernels.rows import Rows, Scales


def _scales(rounded: bool) -> Scales | None:
    return "any" if rounded else None


def _told(rows: Rows, rounded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return rows.rounded if rounded else rows.plain, rows.scale


def add_norm(
    x: torch.Tensor,
    y: torch.Tensor,
    bias: torch.Tensor | None,
    gate: torch.Tensor,
    weight: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    rounded: bool,
    *,
    form: Form | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A product onto the state, and the LayerNorm behind it.

    Args:
        x: the state [..., D].
        y: the product [..., D].
        bias: [D] of the product, if it is still to be added.
        gate: [1], factor of the product.
        weight, shift: [D] of the norm.
        eps: added to the variance.
        rounded: the norm in fp8.
        form: overrides the choice by device.

    Returns:
        x + gate * (y + bias) and its norm, [..., D] each, and the norm's scales: fp32 [..., 1], or nothing.
    """
    if row_form(x, form) == "triton":
        from model.kernels.whole_rows import norm_rows

        total, normed, _, _ = norm_rows(x.contiguous(), y.contiguous(), bias, gate, weight, shift, eps, _scales(rounded))
        return total, *_told(normed, rounded)
    return torch_rows.add_norm(x, y, bias, gate, weight, shift, eps, rounded)


def gelu_rows(
    y: torch.Tensor, bias: torch.Tensor | None, rounded: bool, *, form: Form | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The exact gelu of a product.

    Args:
        y: the product [..., n].
        bias: [n] of the product, if it is still to be added.
        rounded: the result in fp8.
        form: overrides the choice by device.

    Returns:
        gelu(y + bias) [..., n] and its scales: fp32 [..., 1], or nothing.
    """
    if row_form(y, form) == "triton":
        from model.kernels import whole_rows

        return _told(whole_rows.gelu_rows(y.contiguous(), bias, _scales(rounded)), rounded)
    return torch_rows.gelu_rows(y, bias, rounded)


def round_rows(x: torch.Tensor, *, form: Form | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """[..., n] -> (float8_e4m3fn of the same shape, fp32 [..., 1]), whose product is x. A row of zeros stays zero.

    Args:
        x: rows.
        form: overrides the choice by device.
    """
    if row_form(x, form) == "triton":
        from model.kernels import whole_rows

        return _told(whole_rows.round_rows(x.contiguous(), "any"), True)
    return torch_rows.round_rows(x)


def _shapes(x: torch.Tensor, rounded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    out = torch.empty_like(x, dtype=torch.float8_e4m3fn if rounded else x.dtype, memory_format=torch.contiguous_format)
    return out, x.new_empty((*x.shape[:-1], 1) if rounded else (0,), dtype=torch.float32)


@torch.library.custom_op("moss_inference::add_norm", mutates_args=())
def traced_add_norm(
    x: torch.Tensor,
    y: torch.Tensor,
    bias: torch.Tensor | None,
    gate: torch.Tensor,
    weight: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    rounded: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`add_norm` as one node of a traced graph."""
    return add_norm(x, y, bias, gate, weight, shift, eps, rounded)


@traced_add_norm.register_fake
def _(
    x: torch.Tensor,
    y: torch.Tensor,
    bias: torch.Tensor | None,
    gate: torch.Tensor,
    weight: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
    rounded: bool,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.empty_like(x, memory_format=torch.contiguous_format), *_shapes(x, rounded)


@torch.library.custom_op("moss_inference::gelu_rows", mutates_args=())
def traced_gelu_rows(y: torch.Tensor, bias: torch.Tensor | None, rounded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """`gelu_rows` as one node of a traced graph."""
    return gelu_rows(y, bias, rounded)


@traced_gelu_rows.register_fake
def _(y: torch.Tensor, bias: torch.Tensor | None, rounded: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return _shapes(y, rounded)


@torch.library.custom_op("moss_inference::round_rows", mutates_args=())
def traced_round_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`round_rows` as one node of a traced graph."""
    return round_rows(x)


@traced_round_rows.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return _shapes(x, True)
