"""Gradients of a LayerNorm: as many programs as run at once, each with its rows and its own sums for the parameters."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.rows import parameter, read, write
from model.vision.fused.kernels.persistent import Launch, pieces, programs

# 128 registers a lane, and two rounds of rows on their way to shared memory while one is computed.
NORM_BACKWARD = Launch(rows=2, warps=4, programs=4, stages=3)


@triton.jit
def _norm_backward(
    dy_ptr, x_ptr, mean_ptr, rstd_ptr, weight_ptr, other_ptr, dx_ptr, sums_ptr, rows,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, OTHER: tl.constexpr,
    MASKED: tl.constexpr, EIGHTS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    within_left, within_right = column_left < WIDTH, column_right < WIDTH
    weight_left = parameter(weight_ptr, column_left, within_left, MASKED)
    weight_right = parameter(weight_ptr, column_right, within_right, MASKED)
    dweight_left, dshift_left = tl.zeros((1, LEFT), tl.float32), tl.zeros((1, LEFT), tl.float32)
    dweight_right, dshift_right = tl.zeros((ROWS, RIGHT), tl.float32), tl.zeros((ROWS, RIGHT), tl.float32)
    kind = dx_ptr.dtype.element_ty
    line = tl.arange(0, ROWS)[:, None]
    place_left, place_right = line * WIDTH + column_left, line * WIDTH + column_right
    for block in tl.range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0), num_stages=STAGES):
        first = tl.cast(block, tl.int64) * ROWS
        start = first * WIDTH  # 64 bits; behind it 32 are enough
        inside = first + line < rows
        mask_left, mask_right = inside & within_left, inside & within_right
        dy_left = read(dy_ptr + start, place_left, mask_left, MASKED)
        dy_right = read(dy_ptr + start, place_right, mask_right, MASKED)
        x_left = read(x_ptr + start, place_left, mask_left, MASKED)
        x_right = read(x_ptr + start, place_right, mask_right, MASKED)
        if OTHER:
            other_left = read(other_ptr + start, place_left, mask_left, MASKED)
            other_right = read(other_ptr + start, place_right, mask_right, MASKED)
        mean, rstd = read(mean_ptr + first, line, inside, MASKED), read(rstd_ptr + first, line, inside, MASKED)
        x_left, x_right = (x_left - mean) * rstd, (x_right - mean) * rstd  # normalised
        dweight_left += tl.sum(dy_left * x_left, axis=0)[None]
        dshift_left += tl.sum(dy_left, axis=0)[None]
        dweight_right += dy_right * x_right
        dshift_right += dy_right
        dy_left, dy_right = dy_left * weight_left, dy_right * weight_right
        along = ((tl.sum(dy_left * x_left, axis=1) + tl.sum(dy_right * x_right, axis=1)) * (1.0 / WIDTH))[:, None]
        level = ((tl.sum(dy_left, axis=1) + tl.sum(dy_right, axis=1)) * (1.0 / WIDTH))[:, None]
        dx_left, dx_right = (dy_left - level - x_left * along) * rstd, (dy_right - level - x_right * along) * rstd
        if OTHER:
            dx_left, dx_right = dx_left + other_left, dx_right + other_right
        write(dx_ptr + start, place_left, dx_left.to(kind), mask_left, MASKED)
        write(dx_ptr + start, place_right, dx_right.to(kind), mask_right, MASKED)
    # sums: [2, programs, WIDTH]
    place = tl.program_id(0) * WIDTH
    write(sums_ptr, place + column_left, dweight_left, within_left, MASKED)
    write(sums_ptr, place + column_right, tl.sum(dweight_right, axis=0)[None], within_right, MASKED)
    place += tl.num_programs(0) * WIDTH
    write(sums_ptr, place + column_left, dshift_left, within_left, MASKED)
    write(sums_ptr, place + column_right, tl.sum(dshift_right, axis=0)[None], within_right, MASKED)


def norm_backward(
    dy: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor, other: Tensor | None, launch: Launch = NORM_BACKWARD
) -> tuple[Tensor, Tensor, Tensor]:
    """As `model.vision.fused.rows.norm_backward`, of contiguous tensors."""
    dx = torch.empty_like(x)
    share = programs(x, launch)
    sums = torch.empty((2, share, x.shape[1]), dtype=torch.float32, device=x.device)
    if share:
        # One rounding at the end: products and sums may become one operation.
        _norm_backward[(share,)](
            dy, x, mean, rstd, weight, x if other is None else other, dx, sums, x.shape[0],
            OTHER=other is not None, **(pieces(x, launch) | {"enable_fp_fusion": True}),
        )  # fmt: skip
    dweight, dshift = sums.sum(1)  # [width] each
    return dx, dweight, dshift
