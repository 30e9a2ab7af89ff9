"""Adam over many tensors in one launch, and the sum of their squares, in Triton.

A table of 64-bit addresses, a row for every piece of a tensor, says where a program works. Every element is read and written
once; the clip factor is a factor of the gradient as it is read. The order of operations is that of Transformer Engine's
FusedAdam, but bias corrections are products with reciprocals (the last bit of an update).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.select import launching_on

CHUNK = 65_536
"""Elements of a piece, a multiple of every block."""
COLUMNS = 6
"""Of a row: elements, then the addresses of gradient, weight, first moment, second moment, and of what completes the weight."""
_WARPS = 4
_LANE_BYTES = 16
"""Of a moment, that a thread reads at once."""
_NORM_BLOCK, _NORM_WARPS = 4096, 8
KINDS = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}
ALONE, REMAINDER, WHOLE = 0, 1, 2
"""What stands beside a weight: nothing, the lower half of its fp32 value (int16), or this value."""


@triton.jit
def _at(row, column: tl.constexpr, kind: tl.constexpr, ALIGNED: tl.constexpr):
    """The pointer in a column of the table."""
    pointer = tl.load(row + column).to(tl.pointer_type(kind))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def _elements(row, ALIGNED: tl.constexpr):
    count = tl.load(row).to(tl.int32)
    if ALIGNED:
        count = tl.multiple_of(count, 8)
    return count


@triton.jit
def _adam(
    table_ptr, clip, rate, beta1, beta2, rest1, rest2, inverse1, inverse2, eps, decay,
    GRADIENT: tl.constexpr, WEIGHT: tl.constexpr, FIRST: tl.constexpr, SECOND: tl.constexpr, BESIDE: tl.constexpr,
    DECOUPLED: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = table_ptr + tl.program_id(0).to(tl.int64) * 6
    count = _elements(row, ALIGNED)
    g_ptr, m_ptr, v_ptr = _at(row, 1, GRADIENT, ALIGNED), _at(row, 3, FIRST, ALIGNED), _at(row, 4, SECOND, ALIGNED)
    if BESIDE == 1:  # both halves as bits
        w_ptr, r_ptr = _at(row, 2, tl.int16, ALIGNED), _at(row, 5, tl.int16, ALIGNED)
    else:
        w_ptr, r_ptr = _at(row, 2, WEIGHT, ALIGNED), _at(row, 5, tl.float32, ALIGNED)
    for begin in range(0, count, BLOCK):
        place = begin + tl.arange(0, BLOCK)
        mask = place < count
        g = tl.load(g_ptr + place, mask=mask, other=0.0).to(tl.float32) * clip
        m = tl.load(m_ptr + place, mask=mask, other=0.0).to(tl.float32)
        v = tl.load(v_ptr + place, mask=mask, other=0.0).to(tl.float32)
        if BESIDE == 1:
            low = tl.load(r_ptr + place, mask=mask, other=0).to(tl.int32)
            high = tl.load(w_ptr + place, mask=mask, other=0).to(tl.int32) - (low < 0).to(tl.int32)
            w = ((high << 16) | (low & 0xFFFF)).to(tl.float32, bitcast=True)
        elif BESIDE == 2:
            w = tl.load(r_ptr + place, mask=mask, other=0.0)
        else:
            w = tl.load(w_ptr + place, mask=mask, other=0.0)
        if not DECOUPLED:
            g = g + decay * w
        m = beta1 * m + rest1 * g
        v = beta2 * v + rest2 * g * g
        change = tl.div_rn(m * inverse1, tl.sqrt_rn(v * inverse2) + eps)
        if DECOUPLED:
            change = change + decay * w
        w = w - rate * change
        tl.store(m_ptr + place, m.to(FIRST), mask=mask)
        tl.store(v_ptr + place, v.to(SECOND), mask=mask)
        if BESIDE == 1:
            bits = w.to(tl.int32, bitcast=True)
            low16 = bits.to(tl.int16)  # wraps
            tl.store(r_ptr + place, low16, mask=mask)
            tl.store(w_ptr + place, ((bits >> 16) + (low16 < 0).to(tl.int32)).to(tl.int16), mask=mask)
        else:
            if BESIDE == 2:
                tl.store(r_ptr + place, w, mask=mask)
            tl.store(w_ptr + place, w.to(WEIGHT), mask=mask)


@triton.jit
def _squares(table_ptr, out_ptr, GRADIENT: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    program = tl.program_id(0).to(tl.int64)
    row = table_ptr + program * 6
    count = _elements(row, ALIGNED)
    g_ptr = _at(row, 1, GRADIENT, ALIGNED)
    total = tl.zeros([BLOCK], tl.float32)
    for begin in range(0, count, BLOCK):
        place = begin + tl.arange(0, BLOCK)
        g = tl.load(g_ptr + place, mask=place < count, other=0.0).to(tl.float32)
        total += g * g
    tl.store(out_ptr + program, tl.sum(total, axis=0))


def launch_adam(
    table: Tensor, scalars: tuple[float, ...], kinds: tuple[torch.dtype, ...], beside: int, decoupled: bool, aligned: bool
) -> None:
    """Update the pieces of a table, all of one kind.

    Args:
        table: int64 [pieces, COLUMNS] on the device.
        scalars: clip factor, learning rate, beta1, beta2, 1 - beta1, 1 - beta2, 1 / bias correction of each moment, eps, decay.
        kinds: dtypes of gradient, weight, first and second moment.
        beside: ALONE, REMAINDER or WHOLE.
        decoupled: AdamW; otherwise the decay is added to the gradient.
        aligned: all addresses are multiples of 16 and all tensors have a multiple of 8 elements.
    """
    gradient, weight, first, second = (KINDS[kind] for kind in kinds)
    block = _WARPS * 32 * _LANE_BYTES // kinds[2].itemsize
    with launching_on(table.device):
        _adam[(table.shape[0],)](
            table, *scalars, gradient, weight, first, second, beside, decoupled, aligned, block, num_warps=_WARPS, num_stages=1
        )


def launch_squares(table: Tensor, kind: torch.dtype, aligned: bool) -> Tensor:
    """Sums of squares, fp32 [pieces], of the gradients of a table."""
    sums = torch.empty(table.shape[0], dtype=torch.float32, device=table.device)  # [pieces]
    grid: Any = (table.shape[0],)
    with launching_on(table.device):
        _squares[grid](table, sums, KINDS[kind], aligned, _NORM_BLOCK, num_warps=_NORM_WARPS, num_stages=1)
    return sums
