"""gelu(x W^T + b) in Triton: gelu is taken of the tile that a product has just finished, and never read from memory.

Persistent programs, tiles moved by the copy engine (tensor descriptors made on the host), sums in fp32.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

ROWS, COLUMNS, INNER = 128, 256, 64
"""A program's tile, and how much of the inner width it multiplies at a time."""

STAGES, WARPS, GROUP = 3, 8, 8


@triton.jit
def _gelu(total, bias_ptr, column, columns, BLOCK: tl.constexpr, KIND: tl.constexpr):
    place = column + tl.arange(0, BLOCK)
    total += tl.load(bias_ptr + place, mask=place < columns, other=0.0).to(tl.float32)[None]
    h = total.to(KIND).to(tl.float32)  # rounded as a product that is stored would be
    return (0.5 * h * (1.0 + tl.erf(h * 0.7071067811865476))).to(KIND)


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
    GROUP: tl.constexpr,
    PROGRAMS: tl.constexpr,
    KIND: tl.constexpr,
):
    down = tl.cdiv(rows, BLOCK_ROWS)
    across = tl.cdiv(columns, BLOCK_COLUMNS)
    for tile in tl.range(tl.program_id(0), down * across, PROGRAMS):
        # Neighbouring programs take tiles of the same rows and columns, which stay in the cache.
        group = tile // (GROUP * across)
        tall = min(down - group * GROUP, GROUP)
        row = (group * GROUP + (tile % (GROUP * across)) % tall) * BLOCK_ROWS
        column = ((tile % (GROUP * across)) // tall) * BLOCK_COLUMNS
        total = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), dtype=tl.float32)
        for step in range(tl.cdiv(inner, BLOCK_INNER)):
            x = x_desc.load([row, step * BLOCK_INNER])
            w = w_desc.load([column, step * BLOCK_INNER])
            total = tl.dot(x, w.T, total)
        # In two halves: both at once are more than the registers hold beside the tile.
        halves = tl.permute(tl.reshape(total, (BLOCK_ROWS, 2, BLOCK_COLUMNS // 2)), (0, 2, 1))
        left, right = tl.split(halves)
        out_desc.store([row, column], _gelu(left, bias_ptr, column, columns, BLOCK_COLUMNS // 2, KIND))
        column += BLOCK_COLUMNS // 2
        out_desc.store([row, column], _gelu(right, bias_ptr, column, columns, BLOCK_COLUMNS // 2, KIND))


def gelu_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, programs: int) -> torch.Tensor:
    """As `inference.kernels.gelu_product.gelu_product`; `programs`: how many run at a time."""
    flat = x.reshape(-1, x.shape[-1])
    rows, inner = flat.shape
    columns = weight.shape[0]
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)
    tiles = triton.cdiv(rows, ROWS) * triton.cdiv(columns, COLUMNS)
    if tiles:
        count = min(programs, tiles)
        _gelu_product[(count,)](
            TensorDescriptor.from_tensor(flat, [ROWS, INNER]),
            TensorDescriptor.from_tensor(weight, [COLUMNS, INNER]),
            TensorDescriptor.from_tensor(out, [ROWS, COLUMNS // 2]),
            bias,
            rows,
            columns,
            inner,
            BLOCK_ROWS=ROWS,
            BLOCK_COLUMNS=COLUMNS,
            BLOCK_INNER=INNER,
            GROUP=GROUP,
            PROGRAMS=count,
            KIND=tl.bfloat16 if x.dtype == torch.bfloat16 else tl.float16,
            num_warps=WARPS,
            num_stages=STAGES,
        )
    return out.view(*x.shape[:-1], columns)
