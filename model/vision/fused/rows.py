"""What lies between the products of a tower layer, forward and backward: each is one pass over memory on a GPU.

Rows are [rows, width]; statistics and gradients of parameters are fp32 (fp64 where rows are). Sums over rows are taken in a
fixed order, so the same operands give the same bits.
"""

from __future__ import annotations

from torch import Tensor

from model.kernels.select import Form, row_form
from model.vision.fused import rows_torch


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
    if row_form(x, form) == "triton":
        from model.kernels import whole_rows

        _, y, mean, rstd = whole_rows.norm_rows(x.contiguous(), None, None, None, weight, shift, eps, told=True)
        return y.plain, mean, rstd
    return rows_torch.norm(x, weight, shift, eps)


def norm_again(x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor, *, form: Form | None = None) -> Tensor:
    """What `norm` gave, from its statistics: x, result [rows, width]; mean, rstd [rows]; weight, shift [width]."""
    if row_form(x, form) == "triton":
        from model.kernels import whole_rows

        return whole_rows.norm_again(x.contiguous(), mean, rstd, weight, shift).plain
    return rows_torch.norm_again(x, mean, rstd, weight, shift)


def add(x: Tensor, y: Tensor, bias: Tensor | None, gate: Tensor | None, *, form: Form | None = None) -> Tensor:
    """x + gate * (y + bias): x, y, result [rows, width]; bias [width]; gate [1]."""
    if row_form(x, form) == "triton":
        from model.vision.fused.kernels import add as kernels

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
    if row_form(x, form) == "triton":
        from model.kernels import whole_rows

        total, normed, mean, rstd = whole_rows.norm_rows(
            x.contiguous(), y.contiguous(), bias, gate, weight, shift, eps, told=True
        )
        return total, normed.plain, mean, rstd
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
    if row_form(x, form) == "triton":
        from model.vision.fused.kernels import norm_backward as kernels

        other = None if dtotal is None else dtotal.contiguous()
        return kernels.norm_backward(dy.contiguous(), x.contiguous(), mean, rstd, weight, other)
    return rows_torch.norm_backward(dy, x, mean, rstd, weight, dtotal)


def column_sums(x: Tensor, *, form: Form | None = None) -> Tensor:
    """Sums of x [rows, width] over its rows: [width], the gradient of a bias."""
    if row_form(x, form) == "triton":
        from model.vision.fused.kernels import sums

        return sums.column_sums(x.contiguous())[0]
    return rows_torch.wide(x).sum(0)


def gelu(pre: Tensor, bias: Tensor | None, *, form: Form | None = None) -> Tensor:
    """The exact gelu of pre + bias: pre, result [rows, width]; bias [width]."""
    if row_form(pre, form) == "triton":
        from model.kernels import whole_rows

        return whole_rows.gelu_rows(pre.contiguous(), bias).plain
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
    if row_form(pre, form) == "triton":
        from model.vision.fused.kernels import gelu_backward as kernels

        dpre, a, dbias = kernels.gelu_backward(da.contiguous(), pre.contiguous(), bias)
        return dpre.plain, a.plain, dbias
    return rows_torch.gelu_backward(da, pre, bias)
