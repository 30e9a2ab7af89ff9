"""Self-attention over packed rows as a plain function of tensors and a plan."""

from __future__ import annotations

import torch
from torch import Tensor

from model.attention.kernels import attend
from model.attention.plan import RowPlan


def self_attention(q: Tensor, k: Tensor, v: Tensor, plan: RowPlan) -> Tensor:
    """Causal attention inside each sample.

    Args:
        q: [T, heads, d], rotated.
        k, v: [T, groups, d]; k rotated.
        plan: samples' segments.

    Returns:
        [T, heads * d].
    """
    mixed = [attend(q[a:b], k[a:b], v[a:b], causal=True) for a, b in plan.segments]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed)
