"""What lies between the products of a tower layer, forward and backward: each is one pass over memory on a GPU.

Rows are [rows, width]; statistics and gradients of parameters are fp32 (fp64 where rows are). Sums over rows are taken in a
fixed order, so the same operands give the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from model.errors import InputError
from model.kernels.select import Form, choose_form
from model.vision.fused import rows_torch

_TYPES = (torch.bfloat16, torch.float16)
_WIDEST = 8192
"""Longer rows do not fit into the registers of a program."""


def form_of(x: Tensor, form: Form | None) -> Form:
    """The form for rows x: Triton's takes 16-bit rows on a GPU."""
    if form is None and (x.dtype not in _TYPES or not 16 <= x.shape[-1] <= _WIDEST):
        return "torch"
    return choose_form(x.device, form)


def needs_product(y: Tensor | None, gate: Tensor | None) -> None:
    """A gate's gradient takes the product that it scaled.

    Raises:
        InputError: there is a gate and no product.
    """
    if gate is not None and y is None:
        raise InputError("y is None, but the gradient of gate needs it: pass the product that the gate scaled")


def norm(x: Tensor, weight: Tensor, shift: Tensor, eps: float, *, form: Form | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm.

    Args:
        x: [rows, width].
        weight, shift: [width].
        eps: added to the variance.
        form: overrides the choice by device, here and below.

    Returns:
        y [rows, width], and of every row its mean and one over its standard deviation, [rows] each.
    """
    if form_of(x, form) == "triton":
        from model.vision.fused.kernels import norm as kernels

        return kernels.norm(x.contiguous(), weight, shift, eps)
    return rows_torch.norm(x, weight, shift, eps)


def norm_again(x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor, *, form: Form | None = None) -> Tensor:
    """What `norm` gave, from its statistics: x, result [rows, width]; mean, rstd [rows]; weight, shift [width]."""
    if form_of(x, form) == "triton":
        from model.vision.fused.kernels import tiles

        return tiles.norm_again(x.contiguous(), mean, rstd, weight, shift)
    return rows_torch.norm_again(x, mean, rstd, weight, shift)


def add(x: Tensor, y: Tensor, bias: Tensor | None, gate: Tensor | None, *, form: Form | None = None) -> Tensor:
    """x + gate * (y + bias): x, y, result [rows, width]; bias [width]; gate [1]."""
    if form_of(x, form) == "triton":
        from model.vision.fused.kernels import norm as kernels

        return kernels.add(x.contiguous(), y.contiguous(), bias, gate)
    return rows_torch.add(x, y, bias, gate)


def add_norm(
    x: Tensor,
    y: Tensor,
    bias: Tensor | None,
    gate: Tensor | None,
    weight: Tensor,
    shift: Tensor,
    eps: float,
    *,
    form: Form | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A product onto the state, and the LayerNorm behind it.

    Args:
        x: the state [rows, width].
        y: the product [rows, width].
        bias: [width] of the product, if it is still to be added.
        gate: [1], factor of the product, if it has one.
        weight, shift: [width] of the norm.
        eps: added to the variance.
        form: as for `norm`.

    Returns:
        total = x + gate * (y + bias) [rows, width], its norm [rows, width], and the norm's statistics, [rows] each.
    """
    if form_of(x, form) == "triton":
        from model.vision.fused.kernels import norm as kernels

        return kernels.add_norm(x.contiguous(), y.contiguous(), bias, gate, weight, shift, eps)
    return rows_torch.add_norm(x, y, bias, gate, weight, shift, eps)


def norm_backward(
    dy: Tensor,
    x: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor,
    dtotal: Tensor | None,
    *,
    form: Form | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `norm`, whose entry had another use too.

    Args:
        dy: gradient of the norm's result [rows, width].
        x: its entry [rows, width].
        mean, rstd: its statistics [rows].
        weight: [width].
        dtotal: gradient of x from its other use [rows, width], if it had one.
        form: as for `norm`.

    Returns:
        dx [rows, width] in the dtype of x, with dtotal; dweight and dshift [width].
    """
    if form_of(x, form) == "triton":
        from model.vision.fused.kernels import norm_backward as kernels

        other = None if dtotal is None else dtotal.contiguous()
        return kernels.norm_backward(dy.contiguous(), x.contiguous(), mean, rstd, weight, other)
    return rows_torch.norm_backward(dy, x, mean, rstd, weight, dtotal)


def add_backward(
    dtotal: Tensor, y: Tensor | None, bias: Tensor | None, gate: Tensor | None, *, form: Form | None = None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of `add`; that of x is dtotal.

    Args:
        dtotal: [rows, width].
        y: the product [rows, width]; needed where there is a gate.
        bias: [width], as it was given to `add`.
        gate: [1], as it was given to `add`.
        form: as for `norm`.

    Returns:
        dy [rows, width] (without a gate dtotal itself), dbias [width] or None, dgate [1] or None.

    Raises:
        InputError: a gate without y.
    """
    needs_product(y, gate)
    if bias is None and gate is None:
        return dtotal, None, None
    if form_of(dtotal, form) == "triton":
        from model.vision.fused.kernels import tiles

        return tiles.add_backward(dtotal.contiguous(), None if y is None else y.contiguous(), bias, gate)
    return rows_torch.add_backward(dtotal, y, bias, gate)


def gelu(pre: Tensor, bias: Tensor | None, *, form: Form | None = None) -> Tensor:
    """The exact gelu of pre + bias: pre, result [rows, width]; bias [width]."""
    if form_of(pre, form) == "triton":
        from model.vision.fused.kernels import tiles

        return tiles.gelu(pre.contiguous(), bias)
    return rows_torch.gelu(pre, bias)


def gelu_backward(
    da: Tensor, pre: Tensor, bias: Tensor | None, *, form: Form | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of `gelu`, and its result again.

    Args:
        da: gradient of the result [rows, width].
        pre: [rows, width], and
        bias: [width] or None, as they were given to `gelu`.
        form: as for `norm`.

    Returns:
        dpre [rows, width], the gelu [rows, width], dbias [width] or None.
    """
    if form_of(pre, form) == "triton":
        from model.vision.fused.kernels import tiles

        return tiles.gelu_backward(da.contiguous(), pre.contiguous(), bias)
    return rows_torch.gelu_backward(da, pre, bias)
