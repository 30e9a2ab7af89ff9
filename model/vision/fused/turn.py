"""Fp8 rows turned into columns: Hopper's fp8 products read both operands along the axis that they sum over."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from model.kernels.select import Form, choose_form, row_form
from model.vision.fused import rows as fused
from model.vision.fused.scales import E4M3_MAX

ALIGNMENT = 16
"""An fp8 product sums over a multiple of so many numbers; columns are filled up with zeros."""


class Turned(NamedTuple):
    """Columns of one scale."""

    columns: Tensor
    """float8_e4m3fn [width, rows filled up to `ALIGNMENT`]; zeros behind the last row."""
    scale: Tensor
    """fp32 [1]; a value is the fp8 number times it."""


def _filled(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def largest(scale: Tensor) -> Tensor:
    """The scale that all rows may share: fp32 [rows, 1] -> [1]."""
    return scale.amax().view(1) if scale.numel() else scale.new_ones(1)


def turn(rows: Tensor, scale: Tensor, *, form: Form | None = None) -> Turned:
    """Turns rows that have a scale each into columns that share the largest of them.

    Scales are powers of two, so numbers keep their bits unless they fall below 2^-6 of the common scale; what falls below 2^-10
    becomes zero.

    Args:
        rows: float8_e4m3fn [rows, width], contiguous.
        scale: fp32 [rows, 1], powers of two.
        form: overrides the choice by device.
    """
    count = rows.shape[0]
    filled, common = _filled(count), largest(scale)
    if choose_form(rows.device, form) == "triton":
        from model.vision.fused.kernels import turn as kernels

        return Turned(kernels.turn(rows, scale, common, filled), common)
    columns = rows.new_zeros((rows.shape[1], filled))
    columns[:, :count] = (rows.half() * (scale / common).half()).to(rows.dtype).t()
    return Turned(columns, common)


def columns(x: Tensor, common: Tensor, *, form: Form | None = None) -> Turned:
    """Rows of wider numbers rounded to columns of a scale that is known, once.

    What `turn` makes of their fp8 rows has the same bits, but where a number below 2^-6 of the common scale was rounded twice.

    Args:
        x: [rows, width].
        common: fp32 [1], a power of two: `largest` of the scales that these rows have.
        form: overrides the choice by device.
    """
    if row_form(x, form) == "triton":
        from model.vision.fused.kernels import columns as kernels

        return Turned(kernels.columns(x.contiguous(), common, _filled(x.shape[0])), common)
    found = x.new_zeros((x.shape[1], _filled(x.shape[0])), dtype=torch.float8_e4m3fn)
    found[:, : x.shape[0]] = (x.float() / common).clamp(-E4M3_MAX, E4M3_MAX).to(found.dtype).t()
    return Turned(found, common)


def norm_columns(
    x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor, common: Tensor, *, form: Form | None = None
) -> Turned:
    """`columns` of `rows.norm_again`."""
    if row_form(x, form) == "triton":
        from model.vision.fused.kernels import columns as kernels

        return Turned(kernels.norm_columns(x.contiguous(), mean, rstd, weight, shift, common, _filled(x.shape[0])), common)
    return columns(fused.norm_again(x, mean, rstd, weight, shift, form=form), common, form=form)


def gelu_columns(pre: Tensor, bias: Tensor | None, common: Tensor, *, form: Form | None = None) -> Turned:
    """`columns` of `rows.gelu`."""
    if row_form(pre, form) == "triton":
        from model.vision.fused.kernels import columns as kernels

        return Turned(kernels.gelu_columns(pre.contiguous(), bias, common, _filled(pre.shape[0])), common)
    return columns(fused.gelu(pre, bias, form=form), common, form=form)
