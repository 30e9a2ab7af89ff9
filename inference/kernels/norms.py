"""Norms of hidden rows, alone and behind the residual sum that precedes them in every layer."""

from __future__ import annotations

import torch

from inference.kernels.torch_forms import norms as torch_norms
from model.kernels.select import Form, choose_form


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, *, form: Form | None = None) -> torch.Tensor:
    """Root-mean-square norm: fp32 statistics, rounded to the input's dtype, then times the weight.

    Args:
        x: [..., H], contiguous.
        weight: [H], in the dtype of `x`.
        eps: added to the mean square.
        form: overrides the choice by device.

    Returns:
        As `x`.
    """
    if choose_form(x.device, form) == "triton":
        from inference.kernels.triton_forms.norms import add_rms_norm as launch

        return launch(None, x, weight, eps, None)[1]
    return torch_norms.rms_norm(x, weight, eps)


def add_rms_norm(
    residual: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    gate: torch.Tensor | None = None,
    *,
    form: Form | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """A block's result onto the residual stream, and the norm that the next block begins with.

    Args:
        residual: [N, H].
        x: [N, H], the block's result.
        weight: [H] of the next norm.
        eps: added to the mean square.
        gate: factor of `x`, [1] for all rows or [N]; None: 1.
        form: overrides the choice by device.

    Returns:
        (residual + gate * x, rms_norm of it), [N, H] each; both new.
    """
    if choose_form(x.device, form) == "triton":
        from inference.kernels.triton_forms.norms import add_rms_norm as launch

        return launch(residual, x, weight, eps, gate)
    return torch_norms.add_rms_norm(residual, x, weight, eps, gate)
