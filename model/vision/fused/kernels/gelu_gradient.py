"""Gradient of gelu in fp8 rows, without gelu again: a weight gradient takes that as columns (`kernels.columns`)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.rows import Rows, gelu_slope, pairs, power_of_two, results, rounded_to
from model.vision.fused.kernels.persistent import Launch, pieces, programs

GELU_GRADIENT = Launch(rows=1, warps=4, programs=4, stages=2)


@triton.jit
def _gradient(da_ptr, pre_ptr, bias_ptr, place, column, mask, BIASED: tl.constexpr, MASKED: tl.constexpr):
    """Gradient of pre, fp32."""
    if MASKED:
        entry = tl.load(pre_ptr + place, mask=mask, other=0.0).to(tl.float32)
        da = tl.load(da_ptr + place, mask=mask, other=0.0).to(tl.float32)
    else:
        entry = tl.load(pre_ptr + place).to(tl.float32)
        da = tl.load(da_ptr + place).to(tl.float32)
    if BIASED:  # read again for every row, from the nearest cache: registers are worth more
        if MASKED:
            bias = tl.load(bias_ptr + column, mask=mask, other=0.0, eviction_policy="evict_last").to(tl.float32)
        else:
            bias = tl.load(bias_ptr + column, eviction_policy="evict_last").to(tl.float32)
        entry = (entry + bias).to(pre_ptr.dtype.element_ty).to(tl.float32)  # one addition of pairs of 16-bit numbers
    _, slope = gelu_slope(entry)
    return da * slope


@triton.jit
def _gelu_gradient(
    da_ptr, pre_ptr, bias_ptr, out_ptr, scale_ptr, sums_ptr, rows,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, BIASED: tl.constexpr, MASKED: tl.constexpr,
    PAIRS: tl.constexpr, HELD: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    # A row as lines as wide as its right piece: the largest number of a lane's is found before lanes have to meet, once.
    line = tl.arange(0, RIGHT)[None]
    left, right = tl.arange(0, LEFT // RIGHT)[:, None] * RIGHT + line, LEFT + line
    # A lane writes the numbers that it read, though it could write 16 at once: they would have to change lanes.
    left, right = tl.max_contiguous(tl.multiple_of(left, (1, HELD)), (1, HELD)), tl.max_contiguous(right, (1, HELD))
    right = tl.multiple_of(right, (1, HELD))
    within_left, within_right = left < WIDTH, right < WIDTH
    kind = pre_ptr.dtype.element_ty
    small = out_ptr.dtype.element_ty
    sum_left, sum_right = tl.zeros((LEFT // RIGHT, RIGHT), tl.float32), tl.zeros((1, RIGHT), tl.float32)
    for row in tl.range(tl.program_id(0), rows, tl.num_programs(0), num_stages=STAGES):
        start = tl.cast(row, tl.int64) * WIDTH  # 64 bits; behind it 32 are enough
        da, pre = da_ptr + start, pre_ptr + start
        of_left = _gradient(da, pre, bias_ptr, left, left, within_left, BIASED, MASKED)
        of_right = _gradient(da, pre, bias_ptr, right, right, within_right, BIASED, MASKED)
        if BIASED:
            sum_left += of_left
            sum_right += of_right
        of_left, of_right = rounded_to(of_left, kind, PAIRS), rounded_to(of_right, kind, PAIRS)
        largest = tl.maximum(tl.max(tl.abs(of_left), axis=0)[None], tl.abs(of_right))  # [1, RIGHT]
        scale = power_of_two(tl.max(largest, axis=1))[:, None]  # [1, 1]
        inverse = tl.div_rn(1.0, scale)
        if MASKED:
            tl.store(out_ptr + start + left, (of_left * inverse).to(small), mask=within_left)
            tl.store(out_ptr + start + right, (of_right * inverse).to(small), mask=within_right)
        else:
            tl.store(out_ptr + start + left, (of_left * inverse).to(small))
            tl.store(out_ptr + start + right, (of_right * inverse).to(small))
        tl.store(scale_ptr + row + tl.zeros((1, 1), tl.int32), scale)
    if BIASED:  # sums: [programs, WIDTH]
        place = tl.program_id(0) * WIDTH
        tl.store(sums_ptr + place + left, sum_left, mask=within_left)
        tl.store(sums_ptr + place + right, sum_right, mask=within_right)


def gelu_gradient(da: Tensor, pre: Tensor, bias: Tensor | None, launch: Launch | None = None) -> tuple[Rows, Tensor | None]:
    """Gradient of pre [rows, width] in fp8, scales powers of two, and of the bias, fp32 [width]; of contiguous tensors."""
    launch = launch or GELU_GRADIENT
    share = programs(pre, launch)
    out, _ = results(pre, "powers", plain=False)
    sums = torch.empty((share if bias is not None else 0, pre.shape[1]), dtype=torch.float32, device=pre.device)
    if share:
        cut = pieces(pre, launch)
        constants = {name: cut[name] for name in ("WIDTH", "LEFT", "RIGHT", "MASKED", "STAGES", "num_warps", "enable_fp_fusion")}
        _gelu_gradient[(share,)](
            da, pre, pre if bias is None else bias, out.rounded, out.scale, sums, pre.shape[0],
            BIASED=bias is not None, PAIRS=pairs(pre), HELD=min(8, max(1, cut["RIGHT"] // (32 * launch.warps))), **constants,
        )  # fmt: skip
    return out, None if bias is None else sums.sum(0)
