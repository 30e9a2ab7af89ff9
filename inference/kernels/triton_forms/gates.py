"""silu(gate) * up in Triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from inference.kernels.triton_forms.dependent import enter, launch_options


@triton.jit
def _silu_and_multiply(x_ptr, out_ptr, inner, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr):
    enter(DEPENDENT)
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < inner
    kind = out_ptr.dtype.element_ty
    gate = tl.load(x_ptr + row * 2 * inner + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x_ptr + row * 2 * inner + inner + column, mask=inside, other=0.0).to(tl.float32)
    opened = (gate / (1.0 + tl.exp(-gate))).to(kind).to(tl.float32)
    tl.store(out_ptr + row * inner + column, (opened * up).to(kind), mask=inside)


def silu_and_multiply(gate_up: torch.Tensor) -> torch.Tensor:
    """As `inference.kernels.gates.silu_and_multiply`."""
    gate_up = gate_up.contiguous()
    inner = gate_up.shape[-1] // 2
    out = torch.empty(*gate_up.shape[:-1], inner, dtype=gate_up.dtype, device=gate_up.device)
    rows = out.numel() // inner
    if rows:
        block = 1024
        grid = (rows, triton.cdiv(inner, block))
        _silu_and_multiply[grid](gate_up, out, inner, BLOCK=block, num_warps=4, **launch_options(gate_up.device, rows))
    return out
