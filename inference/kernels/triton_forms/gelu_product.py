"""gelu(x W^T + b) in Triton: gelu is taken of the tile that a product has just finished, and never read from memory.

Persistent programs, tiles moved by the copy engine (tensor descriptors made on the host), sums in fp32.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor


@dataclass(frozen=True)
class Launch:
    """Shape of a launch: what a benchmark varies."""

    rows: int = 128
    columns: int = 256
    """Of a program's tile."""
    inner: int = 64
    """How much of the inner width is multiplied at a time."""
    warps: int = 8
    stages: int = 3
    """Blocks of both operands in shared memory."""
    at_once: int = 1
    """Programs on a multiprocessor: while one takes gelu, another multiplies."""
    parts: int = 2
    """Column shares (1, 2 or 4) that gelu is taken of, one behind the other: fewer registers beside the tile."""
    group: int = 8
    """Tiles above each other that neighbouring programs take."""
    flat: bool = True
    """One loop over the blocks of all tiles: a tile's first blocks are on their way while gelu of the last is taken."""


DEFAULT = Launch()


@triton.jit
def gelu_of(h):
    """The erf gelu of numbers rounded to bf16: rounded again, the nearest one of each above -4.5, and 1e-10 off below.

    gelu(h) = max(h, 0) - |h| Phi(-|h|), and log2 of Phi(-a) is nearly a parabola: its fit keeps the relative error (2^-17) of
    both tails, where 1 + erf would cancel. Above 16 nothing is left of Phi(-a). 13 instructions, of which one is an exponential.
    """
    a = tl.minimum(tl.abs(h), 16.0, propagate_nan=tl.PropagateNan.ALL)
    power = tl.fma(a, -1.46421928e-06, 5.54643739e-05)
    power = tl.fma(a, power, -0.000890809053)
    power = tl.fma(a, power, 0.00838068221)
    power = tl.fma(a, power, -0.0537496023)
    power = tl.fma(a, power, -0.458634734)
    power = tl.fma(a, power, -1.15119743)
    power = tl.fma(a, power, -1.0)
    return tl.maximum(h, 0.0, propagate_nan=tl.PropagateNan.ALL) - a * tl.exp2(power)


@triton.jit
def _rounded(total, KIND: tl.constexpr, PAIRED: tl.constexpr):
    """fp32 numbers rounded as a product that is stored would be, in fp32 again."""
    if PAIRED:  # two at a time: the compiler would round one by one, an eighth as fast
        return tl.inline_asm_elementwise(
            "{ .reg .b32 pair; cvt.rn.bf16x2.f32 pair, $3, $2; shl.b32 $0, pair, 16; and.b32 $1, pair, 0xffff0000; }",
            "=r,=r,r,r",
            [total],
            dtype=tl.float32,
            is_pure=True,
            pack=2,
        )
    return total.to(KIND).to(tl.float32)


@triton.jit
def _finish(total, bias_ptr, out_desc, row, column, columns, PARTS: tl.constexpr, KIND: tl.constexpr, PAIRED: tl.constexpr):
    """Bias, gelu and the store of a tile, or of its column shares one behind the other."""
    if PARTS == 1:
        place = column + tl.arange(0, total.shape[1])
        total += tl.load(bias_ptr + place, mask=place < columns, other=0.0).to(tl.float32)[None]
        out_desc.store([row, column], gelu_of(_rounded(total, KIND, PAIRED)).to(KIND))
    else:
        halves = tl.permute(tl.reshape(total, (total.shape[0], 2, total.shape[1] // 2)), (0, 2, 1))
        left, right = tl.split(halves)
        _finish(left, bias_ptr, out_desc, row, column, columns, PARTS // 2, KIND, PAIRED)
        _finish(right, bias_ptr, out_desc, row, column + total.shape[1] // 2, columns, PARTS // 2, KIND, PAIRED)


@triton.jit
def place(tile, down, across, GROUP: tl.constexpr):
    """(row, column) of a tile, in tiles: neighbouring programs take the same rows and columns, which stay in the cache."""
    group = tile // (GROUP * across)
    tall = min(down - group * GROUP, GROUP)
    return group * GROUP + (tile % (GROUP * across)) % tall, (tile % (GROUP * across)) // tall


@triton.jit
def _gelu_product(
    x_desc,
    w_desc,
    out_desc,
    bias_ptr,
    rows,
    columns,
    inner,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    PARTS: tl.constexpr,
    GROUP: tl.constexpr,
    PROGRAMS: tl.constexpr,
    FLAT: tl.constexpr,
    KIND: tl.constexpr,
    PAIRED: tl.constexpr,
):
    down = tl.cdiv(rows, BLOCK_ROWS)
    across = tl.cdiv(columns, BLOCK_COLUMNS)
    for tile in tl.range(tl.program_id(0), down * across, PROGRAMS, flatten=FLAT):
        down_at, across_at = place(tile, down, across, GROUP)
        total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)
        for step in range(tl.cdiv(inner, BLOCK_INNER)):
            x = x_desc.load([down_at * BLOCK_ROWS, step * BLOCK_INNER])
            w = w_desc.load([across_at * BLOCK_COLUMNS, step * BLOCK_INNER])
            total = tl.dot(x, w.T, total)
        _finish(total, bias_ptr, out_desc, down_at * BLOCK_ROWS, across_at * BLOCK_COLUMNS, columns, PARTS, KIND, PAIRED)


def gelu_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, units: int, launch: Launch = DEFAULT) -> torch.Tensor:
    """As `inference.kernels.gelu_product.gelu_product`; `units`: multiprocessors of the device."""
    flat = x.reshape(-1, x.shape[-1])
    rows, inner = flat.shape
    columns = weight.shape[0]
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    tiles = triton.cdiv(rows, launch.rows) * triton.cdiv(columns, launch.columns)
    if tiles:
        count = min(units * launch.at_once, tiles)
        _gelu_product[(count,)](
            TensorDescriptor.from_tensor(flat, [launch.rows, launch.inner]),
            TensorDescriptor.from_tensor(weight, [launch.columns, launch.inner]),
            TensorDescriptor.from_tensor(out, [launch.rows, launch.columns // launch.parts]),
            bias,
            rows,
            columns,
            inner,
            BLOCK_ROWS=launch.rows,
            BLOCK_COLUMNS=launch.columns,
            BLOCK_INNER=launch.inner,
            PARTS=launch.parts,
            GROUP=launch.group,
            PROGRAMS=count,
            FLAT=launch.flat,
            KIND=tl.bfloat16 if x.dtype == torch.bfloat16 else tl.float16,
            PAIRED=x.dtype == torch.bfloat16 and x.device.type != "cpu",  # no instruction by name in the interpreter
            num_warps=launch.warps,
            num_stages=launch.stages,
        )
    return out.view(*x.shape[:-1], columns)
