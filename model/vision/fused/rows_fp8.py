"""What lies between the products of a tower layer, with results rounded to fp8 in the same pass.

fp8 is float8_e4m3fn with one scale a row, a power of two (`model.vision.fused.scales`). Numbers are rounded to the dtype of the
rows first, so fp8 of a result that was kept and of one that is computed again have the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from model.kernels.select import Form, row_form
from model.vision.fused import rows as fused
from model.vision.fused import scales


class Rounded(NamedTuple):
    """Rows in fp8."""

    plain: Tensor | None
    """[rows, width] in the dtype of the operands, where it was asked for."""
    rows: Tensor
    """float8_e4m3fn [rows, width]."""
    scale: Tensor
    """fp32 [rows, 1]: a value is the fp8 number times it."""


def _rounded(x: Tensor, plain: bool = False) -> Rounded:
    return Rounded(x if plain else None, *scales.round_rows(x))


def round_rows(x: Tensor, *, plain: bool = False, form: Form | None = None) -> Rounded:
    """x [rows, width] in fp8; `plain` with x itself."""
    if row_form(x, form) == "triton":
        from model.kernels import whole_rows

        _, rows, scale = whole_rows.round_rows(x.contiguous(), "powers")
        return Rounded(x if plain else None, rows, scale)
    return _rounded(x, plain)


def round_rows_summed(x: Tensor, *, plain: bool = False, form: Form | None = None) -> tuple[Rounded, Tensor]:
    """x [rows, width] in fp8, and its sum over the rows, fp32 [width]; `plain` with x itself."""
    if row_form(x, form) == "triton":
        from model.vision.fused.kernels import sums

        summed, (_, rows, scale) = sums.column_sums(x.contiguous(), "powers")
        return Rounded(x if plain else None, rows, scale), summed
    return _rounded(x, plain), fused.column_sums(x, form=form)


def norm(x: Tensor, weight: Tensor, shift: Tensor, eps: float, *, form: Form | None = None) -> tuple[Rounded, Tensor, Tensor]:
    """As `rows.norm`."""
    if row_form(x, form) == "triton":
        from model.kernels import whole_rows

        _, out, mean, rstd = whole_rows.norm_rows(x.contiguous(), None, None, None, weight, shift, eps, "powers", told=True)
        return Rounded(None, out.rounded, out.scale), mean, rstd
    y, mean, rstd = fused.norm(x, weight, shift, eps, form=form)
    return _rounded(y), mean, rstd


def norm_again(
    x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor, *, plain: bool = False, form: Form | None = None
) -> Rounded:
    """As `rows.norm_again`; `plain`: in the dtype of x too."""
    if row_form(x, form) == "triton":
        from model.kernels import whole_rows

        again = whole_rows.norm_again(x.contiguous(), mean, rstd, weight, shift, "powers", plain=plain)
        return Rounded(again.plain if plain else None, again.rounded, again.scale)
    return _rounded(fused.norm_again(x, mean, rstd, weight, shift, form=form), plain)


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
) -> tuple[Tensor, Rounded, Tensor, Tensor]:
    """As `rows.add_norm`; the sum is not rounded to fp8."""
    if row_form(x, form) == "triton":
        from model.kernels import whole_rows

        total, out, mean, rstd = whole_rows.norm_rows(
            x.contiguous(), y.contiguous(), bias, gate, weight, shift, eps, "powers", told=True
        )
        return total, Rounded(None, out.rounded, out.scale), mean, rstd
    total, normed, mean, rstd = fused.add_norm(x, y, bias, gate, weight, shift, eps, form=form)
    return total, _rounded(normed), mean, rstd


def gelu(pre: Tensor, bias: Tensor | None, *, form: Form | None = None) -> Rounded:
    """As `rows.gelu`."""
    if row_form(pre, form) == "triton":
        from model.kernels import whole_rows

        _, rows, scale = whole_rows.gelu_rows(pre.contiguous(), bias, "powers")
        return Rounded(None, rows, scale)
    return _rounded(fused.gelu(pre, bias, form=form))


def gelu_backward(
    da: Tensor, pre: Tensor, bias: Tensor | None, *, plain: bool = False, form: Form | None = None
) -> tuple[Rounded, Rounded, Tensor | None]:
    """As `rows.gelu_backward`; `plain`: gradient and gelu in the dtype of pre too."""
    if row_form(pre, form) == "triton":
        from model.vision.fused.kernels import gelu_backward as kernels

        dpre, a, dbias = kernels.gelu_backward(da.contiguous(), pre.contiguous(), bias, "powers", plain=plain)
        both = [Rounded(found.plain if plain else None, found.rounded, found.scale) for found in (dpre, a)]
        return both[0], both[1], dbias
    dpre_plain, a_plain, dbias = fused.gelu_backward(da, pre, bias, form=form)
    return _rounded(dpre_plain, plain), _rounded(a_plain, plain), dbias


def gelu_gradient(da: Tensor, pre: Tensor, bias: Tensor | None, *, form: Form | None = None) -> tuple[Rounded, Tensor | None]:
    """As `gelu_backward`, without gelu again."""
    if row_form(pre, form) == "triton":
        from model.vision.fused.kernels import gelu_gradient as kernels

        dpre, dbias = kernels.gelu_gradient(da.contiguous(), pre.contiguous(), bias)
        return Rounded(None, dpre.rounded, dpre.scale), dbias
    dpre_plain, _, dbias = fused.gelu_backward(da, pre, bias, form=form)
    return _rounded(dpre_plain), dbias
