"""The gate of an MLP, behind a product that was not fused with it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from model.kernels.select import Form, choose_form


def silu_and_multiply(gate_up: torch.Tensor, *, form: Form | None = None) -> torch.Tensor:
    """silu(gate) * up in one launch, rounded where the two operations would.

    Args:
        gate_up: [..., 2 * inner], the gate's half first.
        form: overrides the choice by device.

    Returns:
        [..., inner].
    """
    if choose_form(gate_up.device, form) == "triton":
        from inference.kernels.triton_forms.gates import silu_and_multiply as launch

        return launch(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up
