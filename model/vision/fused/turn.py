"""Fp8 rows turned into columns: Hopper's fp8 products read both operands along the axis that they sum over."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from model.kernels.select import Form, choose_form

ALIGNMENT = 16
"""An fp8 product sums over a multiple of so many numbers; columns are filled up with zeros."""


class Turned(NamedTuple):
    """Columns of one scale."""

    columns: Tensor
    """float8_e4m3fn [width, rows filled up to `ALIGNMENT`]; zeros behind the last row."""
    scale: Tensor
    """fp32 [1]; a value is the fp8 number times it."""


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
    filled = -(-count // ALIGNMENT) * ALIGNMENT
    common = scale.amax().view(1) if count else scale.new_ones(1)
    if choose_form(rows.device, form) == "triton":
        from model.vision.fused.kernels import turn as kernels

        return Turned(kernels.turn(rows, scale, common, filled), common)
    columns = rows.new_zeros((rows.shape[1], filled))
    columns[:, :count] = (rows.half() * (scale / common).half()).to(rows.dtype).t()
    return Turned(columns, common)
