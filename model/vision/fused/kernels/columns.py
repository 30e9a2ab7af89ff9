"""Rows of 16-bit numbers, or their norm or gelu, rounded to fp8 of one scale that is known before, as columns."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.rows import gelu, pairs, rounded_to
from model.kernels.select import launching_on


class Launch(NamedTuple):
    """How the kernel is launched."""

    rows: int = 128
    columns: int = 64
    warps: int = 8


LAUNCH, NORM_LAUNCH = Launch(), Launch(warps=4)
PLAIN, NORM, GELU = 0, 1, 2


@triton.jit
def _valued(
    x_ptr, mean_ptr, rstd_ptr, weight, shift, inverse, row, column, rows, within,
    WIDTH: tl.constexpr, KIND: tl.constexpr, BIASED: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """One row in four of a tile, over the common scale: fp32."""
    inside = row < rows
    x = tl.load(x_ptr + row.to(tl.int64)[:, None] * WIDTH + column[None], mask=inside[:, None] & within[None], other=0.0)
    kind = x_ptr.dtype.element_ty
    x = x.to(tl.float32)
    if KIND == 1:
        mean, rstd = tl.load(mean_ptr + row, mask=inside, other=0.0), tl.load(rstd_ptr + row, mask=inside, other=0.0)
        x = rounded_to((x - mean[:, None]) * rstd[:, None] * weight[None] + shift[None], kind, PAIRS)
    elif KIND == 2:
        if BIASED:
            x = (x + shift[None]).to(kind).to(tl.float32)
        x = rounded_to(gelu(x), kind, PAIRS)
    return x * tl.where(inside, inverse, 0.0)[:, None]  # beyond the last row everything is zero


@triton.jit
def _word(first, second, third, fourth, kind: tl.constexpr, PAIRS: tl.constexpr):
    """Four numbers in fp8 as one word, the first in its lowest byte."""
    if PAIRS:  # two a conversion, and no byte by itself
        return tl.inline_asm_elementwise(
            "{ .reg .b16 low, high; cvt.rn.satfinite.e4m3x2.f32 low, $2, $1; cvt.rn.satfinite.e4m3x2.f32 high, $4, $3; "
            "mov.b32 $0, {low, high}; }",
            "=r,r,r,r,r",
            [first, second, third, fourth],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    else:
        joint = first.to(kind).to(tl.uint8, bitcast=True).to(tl.int32)
        joint |= second.to(kind).to(tl.uint8, bitcast=True).to(tl.int32) << 8
        joint |= third.to(kind).to(tl.uint8, bitcast=True).to(tl.int32) << 16
        return joint | (fourth.to(kind).to(tl.uint8, bitcast=True).to(tl.int32) << 24)


@triton.jit
def _columns(
    x_ptr, mean_ptr, rstd_ptr, weight_ptr, shift_ptr, common_ptr, out_ptr, words_ptr, rows, sixteens,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, KIND: tl.constexpr, BIASED: tl.constexpr,
    PAIRS: tl.constexpr,
):  # fmt: skip
    # Four rows of a column make one word: bytes would pass through shared memory one by one.
    word = tl.program_id(0) * (ROWS // 4) + tl.arange(0, ROWS // 4)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    words = 4 * sixteens  # written so that 16 bytes are stored at once
    within = column < WIDTH
    inverse = tl.div_rn(1.0, tl.load(common_ptr))  # of a power of two: exact
    weight, shift = inverse, inverse
    if KIND == 1:
        weight = tl.load(weight_ptr + column, mask=within, other=0.0).to(tl.float32)
    if BIASED:
        shift = tl.load(shift_ptr + column, mask=within, other=0.0).to(tl.float32)
    given = (x_ptr, mean_ptr, rstd_ptr, weight, shift, inverse)
    first = _valued(*given, 4 * word, column, rows, within, WIDTH, KIND, BIASED, PAIRS)
    second = _valued(*given, 4 * word + 1, column, rows, within, WIDTH, KIND, BIASED, PAIRS)
    third = _valued(*given, 4 * word + 2, column, rows, within, WIDTH, KIND, BIASED, PAIRS)
    fourth = _valued(*given, 4 * word + 3, column, rows, within, WIDTH, KIND, BIASED, PAIRS)
    joint = _word(first, second, third, fourth, out_ptr.dtype.element_ty, PAIRS)
    place = column.to(tl.int64)[:, None] * words + word[None]
    tl.store(words_ptr + place, tl.trans(joint), mask=within[:, None] & (word < words)[None])


def _launched(
    kind: int, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor | None, common: Tensor, filled: int,
    launch: Launch | None,
) -> Tensor:  # fmt: skip
    count, width = x.shape
    launch = launch or (NORM_LAUNCH if kind == NORM else LAUNCH)
    out = torch.empty((width, filled), dtype=torch.float8_e4m3fn, device=x.device)
    if out.numel():
        constants: dict[str, Any] = {"KIND": kind, "BIASED": shift is not None, "PAIRS": pairs(x), "enable_fp_fusion": False}
        with launching_on(x.device):
            _columns[(triton.cdiv(filled, launch.rows), triton.cdiv(width, launch.columns))](
                x, mean, rstd, weight, x if shift is None else shift, common, out, out.view(torch.int32), count, filled // 16,
                WIDTH=width, ROWS=launch.rows, COLUMNS=launch.columns, num_warps=launch.warps, **constants,
            )  # fmt: skip
    return out


def columns(x: Tensor, common: Tensor, filled: int, launch: Launch | None = None) -> Tensor:
    """float8_e4m3fn [width, filled] of contiguous x [rows, width] over `common` [1]; zeros behind the last row."""
    return _launched(PLAIN, x, x, x, x, None, common, filled, launch)


def norm_columns(
    x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, shift: Tensor, common: Tensor, filled: int,
    launch: Launch | None = None,
) -> Tensor:  # fmt: skip
    """As `columns`, of the norm of x by its statistics [rows]."""
    return _launched(NORM, x, mean, rstd, weight, shift, common, filled, launch)


def gelu_columns(x: Tensor, bias: Tensor | None, common: Tensor, filled: int, launch: Launch | None = None) -> Tensor:
    """As `columns`, of gelu(x + bias)."""
    return _launched(GELU, x, x, x, x, bias, common, filled, launch)
