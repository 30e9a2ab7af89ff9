"""A product onto the state, without a norm behind it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from model.kernels.rows import Launch, added, pieces

ADD = Launch(rows=1, warps=1)


@triton.jit
def _add_rows(
    x_ptr, y_ptr, bias_ptr, gate_ptr, sum_ptr, rows,
    WIDTH: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, ROWS: tl.constexpr, BIASED: tl.constexpr,
    GATED: tl.constexpr, MASKED: tl.constexpr, EIGHTS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)[:, None]
    column_left, column_right = tl.arange(0, LEFT)[None], LEFT + tl.arange(0, RIGHT)[None]
    inside = row < rows
    gate = tl.load(gate_ptr).to(tl.float32) if GATED else 1.0
    added(x_ptr, y_ptr, bias_ptr, sum_ptr, gate, row * WIDTH + column_left, column_left, inside & (column_left < WIDTH),
          True, BIASED, GATED, MASKED)  # fmt: skip
    added(x_ptr, y_ptr, bias_ptr, sum_ptr, gate, row * WIDTH + column_right, column_right, inside & (column_right < WIDTH),
          True, BIASED, GATED, MASKED)  # fmt: skip


def add(x: Tensor, y: Tensor, bias: Tensor | None, gate: Tensor | None, launch: Launch = ADD) -> Tensor:
    """As `model.vision.fused.rows.add`, of contiguous tensors."""
    total = torch.empty_like(x)
    rows, width = x.shape
    if rows:
        _add_rows[(triton.cdiv(rows, launch.rows),)](
            x, y, x if bias is None else bias, x if gate is None else gate, total, rows,
            BIASED=bias is not None, GATED=gate is not None, **pieces(rows, width, launch),
        )  # fmt: skip
    return total
