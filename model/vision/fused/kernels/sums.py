"""Sums over rows, and with them the rows in fp8."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.rows import Rows, Scales, read, results, write, write_rounded
from model.vision.fused.kernels.persistent import Launch, pieces, programs

COLUMN_SUMS = Launch(rows=4, warps=4, programs=8)
ROUND_SUMMED = Launch(rows=4, warps=4, programs=5)


@triton.jit
def _column_sums(
    x_ptr, out_ptr, scale_ptr, sums_ptr, rows,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, ROUNDED: tl.constexpr,
    MASKED: tl.constexpr, EIGHTS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    within_left, within_right = column_left < WIDTH, column_right < WIDTH
    sum_left, sum_right = tl.zeros((1, LEFT), tl.float32), tl.zeros((ROWS, RIGHT), tl.float32)
    line = tl.arange(0, ROWS)[:, None]
    place_left, place_right = line * WIDTH + column_left, line * WIDTH + column_right
    for block in tl.range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0), num_stages=STAGES):
        first = tl.cast(block, tl.int64) * ROWS
        start = first * WIDTH  # 64 bits; behind it 32 are enough
        inside = first + line < rows
        mask_left, mask_right = inside & within_left, inside & within_right
        left = read(x_ptr + start, place_left, mask_left, MASKED)
        right = read(x_ptr + start, place_right, mask_right, MASKED)
        sum_left += tl.sum(left, axis=0)[None]
        sum_right += right
        if ROUNDED > 0:
            write_rounded(
                out_ptr + start, scale_ptr + first, line, column_left, column_right, left, right, inside, mask_left,
                mask_right, WIDTH, ROUNDED, MASKED, EIGHTS,
            )  # fmt: skip
    place = tl.program_id(0) * WIDTH  # sums: [programs, WIDTH]
    write(sums_ptr, place + column_left, sum_left, within_left, MASKED)
    write(sums_ptr, place + column_right, tl.sum(sum_right, axis=0)[None], within_right, MASKED)


def column_sums(x: Tensor, scales: Scales | None = None, launch: Launch | None = None) -> tuple[Tensor, Rows]:
    """fp32 [width], sums of contiguous x [rows, width]; and x with these scales, or as it is."""
    launch = launch or (COLUMN_SUMS if scales is None else ROUND_SUMMED)
    share = programs(x, launch)
    if scales is None:
        out, rounding = Rows(x, x, x), 0
    else:
        out, constants = results(x, scales, plain=False)
        rounding = constants["ROUNDED"]
    sums = torch.empty((share, x.shape[1]), dtype=torch.float32, device=x.device)
    if share:
        _column_sums[(share,)](x, out.rounded, out.scale, sums, x.shape[0], ROUNDED=rounding, **pieces(x, launch))
    return sums.sum(0), out
