"""Residual sum and root-mean-square norm in one pass: a program holds a whole row in registers."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from inference.kernels.triton_forms.dependent import OFF, announce, launch_options, wait


@triton.jit
def _add_rms_norm(
    residual_ptr, x_ptr, weight_ptr, gate_ptr, sum_ptr, out_ptr, gate_row, width, eps,
    ADD: tl.constexpr, GATED: tl.constexpr, BLOCK: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    announce(DEPENDENT != OFF, True)
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    kind = out_ptr.dtype.element_ty
    weight = tl.load(weight_ptr + column, mask=inside, other=0.0).to(tl.float32)
    wait(DEPENDENT)
    x = tl.load(x_ptr + row * width + column, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        x = (x * tl.load(gate_ptr + row * gate_row).to(tl.float32)).to(kind).to(tl.float32)
    if ADD:
        x = (tl.load(residual_ptr + row * width + column, mask=inside, other=0.0).to(tl.float32) + x).to(kind)
        tl.store(sum_ptr + row * width + column, x, mask=inside)
        x = x.to(tl.float32)
    scale = 1.0 / tl.sqrt_rn(tl.sum(x * x) / width + eps)
    tl.store(out_ptr + row * width + column, ((x * scale).to(kind).to(tl.float32) * weight).to(kind), mask=inside)


def add_rms_norm(
    residual: torch.Tensor | None, x: torch.Tensor, weight: torch.Tensor, eps: float, gate: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `inference.kernels.norms.add_rms_norm`; without `residual` the sum is `x` itself and is not written."""
    x = x.contiguous()
    width, rows = x.shape[-1], x.numel() // x.shape[-1]
    out = torch.empty_like(x)
    total = x if residual is None else torch.empty_like(x)
    if rows:
        _add_rms_norm[(rows,)](
            x if residual is None else residual.contiguous(), x, weight, weight if gate is None else gate, total, out,
            0 if gate is None or gate.numel() == 1 else gate.stride(0), width, eps,
            ADD=residual is not None, GATED=gate is not None, BLOCK=triton.next_power_of_2(width),
            num_warps=8 if width > 2048 else 4, **launch_options(x.device, rows),
            enable_fp_fusion=False,  # a gate's product and the sum behind it would become one operation with one rounding
        )  # fmt: skip
    return total, out
