"""Fp8 rows turned into columns of one scale."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.select import launching_on


class Launch(NamedTuple):
    """How the kernel is launched."""

    rows: int = 128
    columns: int = 128
    warps: int = 4


LAUNCH = Launch()


@triton.jit
def _moved(rows_ptr, scale_ptr, common, row, column, rows, mask, WIDTH: tl.constexpr):
    """One row in four of a tile at the common scale, as the bits of its bytes: int32."""
    inside = row < rows
    # Both are powers of two: the division is exact. Beyond the last row everything is zero.
    factor = tl.div_rn(tl.load(scale_ptr + row, mask=inside, other=0.0), common).to(tl.float16)
    value = tl.load(rows_ptr + row.to(tl.int64)[:, None] * WIDTH + column[None], mask=mask & inside[:, None], other=0.0)
    # fp16 holds every fp8 number and each of its products that does not round to zero; two are converted at once.
    moved = (value.to(tl.float16) * factor[:, None]).to(tl.float8e4nv)
    return moved.to(tl.uint8, bitcast=True).to(tl.int32)


@triton.jit
def _turn(
    rows_ptr, scale_ptr, common_ptr, out_ptr, rows, sixteens,
    WIDTH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    # Four rows of a column make one word: bytes would pass through shared memory one by one.
    word = tl.program_id(0) * (ROWS // 4) + tl.arange(0, ROWS // 4)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    words = 4 * sixteens  # written so that 16 bytes are stored at once
    common = tl.load(common_ptr)
    mask = (column < WIDTH)[None]
    joint = _moved(rows_ptr, scale_ptr, common, 4 * word, column, rows, mask, WIDTH)
    joint |= _moved(rows_ptr, scale_ptr, common, 4 * word + 1, column, rows, mask, WIDTH) << 8
    joint |= _moved(rows_ptr, scale_ptr, common, 4 * word + 2, column, rows, mask, WIDTH) << 16
    joint |= _moved(rows_ptr, scale_ptr, common, 4 * word + 3, column, rows, mask, WIDTH) << 24
    place = column.to(tl.int64)[:, None] * words + word[None]
    tl.store(out_ptr + place, tl.trans(joint), mask=(column < WIDTH)[:, None] & (word < words)[None])


def turn(rows: Tensor, scale: Tensor, common: Tensor, filled: int, launch: Launch = LAUNCH) -> Tensor:
    """As `model.vision.fused.turn.turn`, of contiguous rows, at the scale `common`, with `filled` rows."""
    count, width = rows.shape
    out = torch.empty((width, filled), dtype=rows.dtype, device=rows.device)
    if out.numel():
        with launching_on(rows.device):
            _turn[(triton.cdiv(filled, launch.rows), triton.cdiv(width, launch.columns))](
                rows, scale, common, out.view(torch.int32), count, filled // 16,
                WIDTH=width, ROWS=launch.rows, COLUMNS=launch.columns, num_warps=launch.warps,
            )  # fmt: skip
    return out
