"""gelu(x W^T + b) for Hopper, gelu of a tile taken while the next one is multiplied.

Two groups of four warps take 64 rows of a tile each, one warp copies blocks for both. A finished half tile is rounded to 16 bits,
two numbers a register, so that it fits beside the sums of the next: matrix instructions run on their own, and gelu of a quarter
is computed behind each of the next tile's first four. Written in Gluon, Triton's language of warps and barriers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from inference.kernels.triton_forms import gelu_product as plain

HALF, COLUMNS = 64, 256
"""Of a tile, that a group of warps sums: 128 registers a thread."""
QUARTERS = 4
"""Shares of a tile's columns, each of which is finished behind one block of the inner width."""


@dataclass(frozen=True)
class Launch:
    """Shape of a launch: what a benchmark varies."""

    inner: int = 64
    """How much of the inner width is multiplied at a time."""
    stages: int = 4
    """Blocks of both operands in shared memory."""
    group: int = 16
    """Tiles above each other that neighbouring programs take."""


DEFAULT = Launch()
"""Measured on an H100 for [51456, 1280] times [5120, 1280]: as fast as the product alone by cuBLAS, within 4 %."""

# Triton 3.6 and later versions name the copies differently.
_fetch = tma.async_load if hasattr(tma, "async_load") else tma.async_copy_global_to_shared
_send = tma.async_store if hasattr(tma, "async_store") else tma.async_copy_shared_to_global
_gelu = gluon.jit(plain.gelu_of.fn)
_place = gluon.jit(plain.place.fn)


@gluon.jit
def _copy(
    x_desc, w_desc, xs, ws, full, empty, down, across, steps,
    GROUP: gl.constexpr, PROGRAMS: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """The copying warp: blocks of all tiles, as soon as both groups are done with what lies in their place."""
    HALF: gl.constexpr = xs.shape[1]
    COLUMNS: gl.constexpr = ws.shape[1]
    INNER: gl.constexpr = xs.shape[2]
    at = 0
    for tile in range(gl.program_id(0), down * across, PROGRAMS):
        row, column = _place(tile, down, across, GROUP)
        for step in range(steps):
            slot = at % STAGES
            mbarrier.wait(empty.index(slot), ((at // STAGES) & 1) ^ 1)
            mbarrier.expect(full.index(slot), (2 * HALF + COLUMNS) * INNER * 2)
            _fetch(x_desc, [row * 2 * HALF, step * INNER], full.index(slot), xs.index(2 * slot))
            _fetch(x_desc, [row * 2 * HALF + HALF, step * INNER], full.index(slot), xs.index(2 * slot + 1))
            _fetch(w_desc, [column * COLUMNS, step * INNER], full.index(slot), ws.index(slot))
            at += 1


@gluon.jit
def _pair(even, odd):
    """Two fp32 tensors rounded to one of pairs of bf16."""
    return gl.inline_asm_elementwise("cvt.rn.bf16x2.f32 $0, $2, $1;", "=r,r,r", [even, odd], dtype=gl.int32, is_pure=True, pack=1)


@gluon.jit
def _bias(bias_ptr, column, columns, COLUMNS: gl.constexpr, layout: gl.constexpr):
    place = column * COLUMNS + gl.arange(0, COLUMNS, layout=gl.SliceLayout(0, layout))
    return gl.load(bias_ptr + place, mask=place < columns, other=0.0)


@gluon.jit
def _rounded(total, bias):
    """A half tile with its bias, rounded as a product that is stored would be: neighbours share a register."""
    total += gl.expand_dims(bias.to(gl.float32), 0)
    even, odd = gl.split(gl.reshape(total, (total.shape[0], total.shape[1] // 2, 2)))
    return _pair(even, odd)


@gluon.jit
def _halves(pairs):
    left_right = gl.permute(gl.reshape(pairs, (pairs.shape[0], 2, pairs.shape[1] // 2)), (0, 2, 1))
    return gl.split(left_right)


@gluon.jit
def _quarters(pairs):
    left, right = _halves(pairs)
    a, b = _halves(left)
    c, d = _halves(right)
    return a, b, c, d


@gluon.jit
def _finish(pairs, out, out_desc, row, column):
    """gelu of a quarter, to memory; `column` counts pairs."""
    even = _gelu((pairs << 16).to(gl.float32, bitcast=True))
    odd = _gelu((pairs & -65536).to(gl.float32, bitcast=True))
    result = _pair(even, odd)
    tma.store_wait(0)  # the quarter before has left the shared memory
    out.store(result)
    fence_async_shared()
    _send(out_desc, [row, column], out)


@gluon.jit
def _multiply(total, at, more, group, xs, ws, full, STAGES: gl.constexpr):
    """Starts the product of the block that is `at`; `more`: onto what is there."""
    slot = at % STAGES
    mbarrier.wait(full.index(slot), (at // STAGES) & 1)
    return warpgroup_mma(xs.index(2 * slot + group), ws.index(slot).permute((1, 0)), total, use_acc=more, is_async=True)


@gluon.jit
def _let_go(total, at, any_before, empty, PENDING: gl.constexpr, STAGES: gl.constexpr):
    """Waits for all products but the last `PENDING`, and frees the block before `at`, if there is any in this tile."""
    total = warpgroup_mma_wait(PENDING, deps=[total])
    mbarrier.arrive(empty.index((at + STAGES - 1) % STAGES), count=1, pred=any_before)
    return total


@gluon.jit
def _work(
    group, xs, ws, outs, full, empty, out_desc, bias_ptr, columns, down, across, steps,
    GROUP: gl.constexpr, PROGRAMS: gl.constexpr, STAGES: gl.constexpr, QUARTERS: gl.constexpr,
):  # fmt: skip
    """A group of four warps."""
    HALF: gl.constexpr = xs.shape[1]
    COLUMNS: gl.constexpr = ws.shape[1]
    WIDTH: gl.constexpr = COLUMNS // 2 // QUARTERS
    layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, COLUMNS, 16])
    out = outs.index(group)
    begin = gl.program_id(0)
    at = 0
    total = gl.zeros((HALF, COLUMNS), gl.float32, layout)
    row, column = _place(begin, down, across, GROUP)
    bias = _bias(bias_ptr, column, columns, COLUMNS, layout)
    # The first tile, which has none to be finished behind it.
    for step in range(steps):
        total = _multiply(total, at, step > 0, group, xs, ws, full, STAGES)
        total = _let_go(total, at, step > 0, empty, 1, STAGES)
        at += 1
    total = _let_go(total, at, True, empty, 0, STAGES)
    pairs = _rounded(total, bias)
    for tile in range(begin + PROGRAMS, down * across, PROGRAMS):
        quarters = _quarters(pairs)
        top, side = (2 * row + group) * HALF, column * QUARTERS * WIDTH
        for part in gl.static_range(QUARTERS):
            total = _multiply(total, at, part > 0, group, xs, ws, full, STAGES)
            if part > 0:
                total = _let_go(total, at, True, empty, 1, STAGES)
            _finish(quarters[part], out, out_desc, top, side + part * WIDTH)
            at += 1
        row, column = _place(tile, down, across, GROUP)
        bias = _bias(bias_ptr, column, columns, COLUMNS, layout)  # early: nothing is multiplied while it is waited for
        for _ in range(QUARTERS, steps):
            total = _multiply(total, at, True, group, xs, ws, full, STAGES)
            total = _let_go(total, at, True, empty, 1, STAGES)
            at += 1
        total = _let_go(total, at, True, empty, 0, STAGES)
        pairs = _rounded(total, bias)
    quarters = _quarters(pairs)
    for part in gl.static_range(QUARTERS):
        _finish(quarters[part], out, out_desc, (2 * row + group) * HALF, (column * QUARTERS + part) * WIDTH)
    tma.store_wait(0)


@gluon.jit
def _overlapped_gelu_product(
    x_desc, w_desc, out_desc, bias_ptr, rows, columns, inner,
    HALF: gl.constexpr, COLUMNS: gl.constexpr, INNER: gl.constexpr, STAGES: gl.constexpr, GROUP: gl.constexpr,
    PROGRAMS: gl.constexpr, QUARTERS: gl.constexpr,
):  # fmt: skip
    xs = gl.allocate_shared_memory(x_desc.dtype, [2 * STAGES, HALF, INNER], x_desc.layout)
    ws = gl.allocate_shared_memory(w_desc.dtype, [STAGES, COLUMNS, INNER], w_desc.layout)
    outs = gl.allocate_shared_memory(out_desc.dtype, [2, HALF, COLUMNS // 2 // QUARTERS], out_desc.layout)
    full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for slot in gl.static_range(STAGES):
        mbarrier.init(full.index(slot), count=1)
        mbarrier.init(empty.index(slot), count=2)
    fence_async_shared()
    down, across, steps = gl.cdiv(rows, 2 * HALF), gl.cdiv(columns, COLUMNS), gl.cdiv(inner, INNER)
    gl.warp_specialize(
        [
            (
                _work,
                (
                    0,
                    xs,
                    ws,
                    outs,
                    full,
                    empty,
                    out_desc,
                    bias_ptr,
                    columns,
                    down,
                    across,
                    steps,
                    GROUP,
                    PROGRAMS,
                    STAGES,
                    QUARTERS,
                ),
            ),
            (
                _work,
                (
                    1,
                    xs,
                    ws,
                    outs,
                    full,
                    empty,
                    out_desc,
                    bias_ptr,
                    columns,
                    down,
                    across,
                    steps,
                    GROUP,
                    PROGRAMS,
                    STAGES,
                    QUARTERS,
                ),
            ),
            (_copy, (x_desc, w_desc, xs, ws, full, empty, down, across, steps, GROUP, PROGRAMS, STAGES)),
        ],
        [4, 1],
        [240, 24],
    )


def _described(matrix: torch.Tensor, block: list[int], kind: gl.dtype) -> TensorDescriptor:
    return TensorDescriptor.from_tensor(matrix, block, gl.NVMMASharedLayout.get_default_for(block, kind))


def overlapped_gelu_product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, units: int, launch: Launch = DEFAULT
) -> torch.Tensor:
    """As `inference.kernels.gelu_product.gelu_product`, in bf16, for an inner width of more than three blocks.

    Args:
        x: [..., in], contiguous.
        weight: [out, in], contiguous.
        bias: [out].
        units: multiprocessors of the device.
        launch: its shape.
    """
    flat = x.reshape(-1, x.shape[-1])
    rows, inner = flat.shape
    columns = weight.shape[0]
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    tiles = triton.cdiv(rows, 2 * HALF) * triton.cdiv(columns, COLUMNS)
    if tiles:
        count = min(units, tiles)
        _overlapped_gelu_product[(count,)](
            _described(flat, [HALF, launch.inner], gl.bfloat16),
            _described(weight, [COLUMNS, launch.inner], gl.bfloat16),
            _described(out.view(torch.int32), [HALF, COLUMNS // 2 // QUARTERS], gl.int32),
            bias,
            rows,
            columns,
            inner,
            HALF=HALF,
            COLUMNS=COLUMNS,
            INNER=launch.inner,
            STAGES=launch.stages,
            GROUP=launch.group,
            PROGRAMS=count,
            QUARTERS=QUARTERS,
            num_warps=4,
        )
    return out.view(*x.shape[:-1], columns)


def can_overlap(x: torch.Tensor, launch: Launch = DEFAULT) -> bool:
    """Whether the operands' type and inner width are taken."""
    return x.dtype == torch.bfloat16 and x.shape[-1] > (QUARTERS - 1) * launch.inner
