"""Products of a few rows with a large matrix: decoding is bound by reading the matrix once."""

from __future__ import annotations

import torch

from inference.kernels.torch_forms import skinny as torch_skinny
from model.kernels.select import Form, choose_form

MAX_ROWS = 16
"""More rows are a task for a general matrix product."""


def skinny_linear(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor | None = None, *, form: Form | None = None
) -> torch.Tensor:
    """Rows times a matrix, summed in fp32, rounded once.

    Args:
        x: [..., in].
        weight: [out, in], contiguous, in the dtype of `x` or float8_e4m3fn.
        scale: fp32 [out] of a float8 weight: row o of the matrix is weight[o] * scale[o].
        form: overrides the choice by device and number of rows.

    Returns:
        [..., out] in the dtype of `x`. The same input gives the same bits in every call of one number of rows.
    """
    if _triton(x, form):
        from inference.kernels.triton_forms.skinny import skinny_product

        return skinny_product(x.reshape(-1, x.shape[-1]), weight, scale, glu=False).view(*x.shape[:-1], -1)
    return torch_skinny.linear(x, weight, scale)


def skinny_swiglu(
    x: torch.Tensor, gate_up: torch.Tensor, scale: torch.Tensor | None = None, *, form: Form | None = None
) -> torch.Tensor:
    """silu(gate) * up without writing either: the first half of an MLP.

    Args:
        x: [..., in].
        gate_up: [2 * inner, in]: the rows of the gate, then those of the other factor.
        scale: as in `skinny_linear`, fp32 [2 * inner].
        form: overrides the choice by device and number of rows.

    Returns:
        [..., inner] in the dtype of `x`, each step rounded where separate operations would.
    """
    if _triton(x, form):
        from inference.kernels.triton_forms.skinny import skinny_product

        return skinny_product(x.reshape(-1, x.shape[-1]), gate_up, scale, glu=True).view(*x.shape[:-1], -1)
    return torch_skinny.swiglu(x, gate_up, scale)


def _triton(x: torch.Tensor, form: Form | None) -> bool:
    rows = x.numel() // x.shape[-1]
    return 0 < rows <= MAX_ROWS and choose_form(x.device, form) == "triton"
