"""Gradient of gelu, and gelu again: both come of one reading."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.rows import Rows, Scales, finish, gelu_slope, pairs, parameter, read, results, write
from model.vision.fused.kernels.persistent import Launch, pieces, programs

GELU_BACKWARD = Launch(rows=1, warps=8, programs=2, stages=3)
GELU_BACKWARD_TWICE = Launch(rows=1, warps=8, programs=2)
"""With results in fp8 and plain, which take the registers of a second round."""


@triton.jit
def _gradient(da_ptr, pre_ptr, bias, place, mask, BIASED: tl.constexpr, MASKED: tl.constexpr):
    """Gradient of pre and gelu(pre + bias), fp32."""
    entry = read(pre_ptr, place, mask, MASKED)
    da = read(da_ptr, place, mask, MASKED)
    if BIASED:
        entry = (entry + bias).to(pre_ptr.dtype.element_ty).to(tl.float32)  # one addition of pairs of 16-bit numbers
    again, slope = gelu_slope(entry)
    return da * slope, again


@triton.jit
def _gelu_backward(
    da_ptr, pre_ptr, bias_ptr, plain_ptr, out_ptr, scale_ptr, a_plain_ptr, a_out_ptr, a_scale_ptr, sums_ptr, rows,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, BIASED: tl.constexpr,
    PLAIN: tl.constexpr, ROUNDED: tl.constexpr, MASKED: tl.constexpr, EIGHTS: tl.constexpr, PAIRS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    within_left, within_right = column_left < WIDTH, column_right < WIDTH
    kind = pre_ptr.dtype.element_ty
    bias_left, bias_right = 0.0, 0.0
    if BIASED:
        bias_left = parameter(bias_ptr, column_left, within_left, MASKED)
        bias_right = parameter(bias_ptr, column_right, within_right, MASKED)
    sum_left, sum_right = tl.zeros((ROWS, LEFT), tl.float32), tl.zeros((ROWS, RIGHT), tl.float32)
    line = tl.arange(0, ROWS)[:, None]
    place_left, place_right = line * WIDTH + column_left, line * WIDTH + column_right
    for block in tl.range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0), num_stages=STAGES):
        first = tl.cast(block, tl.int64) * ROWS
        start = first * WIDTH  # 64 bits; behind it 32 are enough
        inside = first + line < rows
        mask_left, mask_right = inside & within_left, inside & within_right
        da, pre = da_ptr + start, pre_ptr + start
        left, a_left = _gradient(da, pre, bias_left, place_left, mask_left, BIASED, MASKED)
        right, a_right = _gradient(da, pre, bias_right, place_right, mask_right, BIASED, MASKED)
        if BIASED:
            sum_left += left
            sum_right += right
        finish(
            plain_ptr + start, out_ptr + start, scale_ptr + first, line, column_left, column_right, left, right, inside,
            mask_left, mask_right, kind, WIDTH, PLAIN, ROUNDED, MASKED, EIGHTS, PAIRS,
        )  # fmt: skip
        finish(
            a_plain_ptr + start, a_out_ptr + start, a_scale_ptr + first, line, column_left, column_right, a_left, a_right,
            inside, mask_left, mask_right, kind, WIDTH, PLAIN, ROUNDED, MASKED, EIGHTS, PAIRS,
        )  # fmt: skip
    if BIASED:  # sums: [programs, WIDTH]
        place = tl.program_id(0) * WIDTH
        write(sums_ptr, place + column_left, tl.sum(sum_left, axis=0)[None], within_left, MASKED)
        write(sums_ptr, place + column_right, tl.sum(sum_right, axis=0)[None], within_right, MASKED)


def gelu_backward(
    da: Tensor,
    pre: Tensor,
    bias: Tensor | None,
    scales: Scales | None = None,
    *,
    plain: bool = False,
    launch: Launch | None = None,
) -> tuple[Rows, Rows, Tensor | None]:
    """As `model.vision.fused.rows.gelu_backward`, of contiguous tensors; `plain`: beside fp8."""
    launch = launch or (GELU_BACKWARD_TWICE if scales is not None and plain else GELU_BACKWARD)
    share = programs(pre, launch)
    dpre, constants = results(pre, scales, plain)
    a, _ = results(pre, scales, plain)
    sums = torch.empty((share if bias is not None else 0, pre.shape[1]), dtype=torch.float32, device=pre.device)
    if share:
        _gelu_backward[(share,)](
            da, pre, pre if bias is None else bias, *dpre, *a, sums, pre.shape[0],
            BIASED=bias is not None, PAIRS=pairs(pre), **constants, **pieces(pre, launch),
        )  # fmt: skip
    return dpre, a, None if bias is None else sums.sum(0)
