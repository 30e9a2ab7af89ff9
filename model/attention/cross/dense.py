"""All scores under one additive mask of rows by keys: the usual way of models of this kind, and what others are measured against.

The mask is made once a micro-batch, and keys and values are laid out for every head, as torch's kernels with a mask want them.
All pairs are computed, those that no row sees too: memory and time grow with rows times keys.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.attention.cross.plan import CrossPlan

ALIGNMENT = 16
"""Numbers that a row of the mask takes a multiple of in memory: else the kernels copy the mask in every call."""


@dataclass(frozen=True)
class DenseMask:
    """What is added to the scores, and which rows have any."""

    bias: Tensor
    """[T, F * P]: 0 where a row sees a key, the dtype's least number elsewhere. Zeros only for rows that see nothing."""
    sees: Tensor | None
    """bool [T, 1]: rows that see a key; None if all do."""


def _make_mask(plan: CrossPlan, dtype: torch.dtype) -> DenseMask:
    width = -(-plan.num_keys // ALIGNMENT) * ALIGNMENT
    frames = torch.arange(plan.num_frames, device=plan.device)
    begin, end = (torch.from_numpy(bound).to(plan.device)[:, None] for bound in (plan.begin, plan.end))
    hidden = (frames < begin) | (frames >= end)  # [T, F]
    blind = (end <= begin)[:, 0]
    some_blind = bool((plan.end <= plan.begin).any())
    if some_blind:
        hidden &= ~blind[:, None]  # a row of equal numbers has gradients that are numbers
    laid = torch.zeros(plan.num_rows, width, dtype=dtype, device=plan.device)
    bias = laid[:, : plan.num_keys]
    bias.unflatten(1, (plan.num_frames, plan.tokens_per_frame)).masked_fill_(hidden[..., None], torch.finfo(dtype).min)
    return DenseMask(bias, ~blind[:, None] if some_blind else None)


def mask_of(plan: CrossPlan, dtype: torch.dtype) -> DenseMask:
    """The mask of a micro-batch, made once."""
    return plan.derive(("dense", dtype), lambda plan: _make_mask(plan, dtype))


def dense_cross_attention(q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan) -> Tensor:
    """Shapes and result as `model.attention.cross.attention.cross_attention`, by torch's scaled dot-product attention.

    There are no log-sums.
    """
    mask = mask_of(plan, q.dtype)
    ratio = q.shape[1] // k.shape[2]
    keys, values = (t.flatten(0, 1).repeat_interleave(ratio, dim=1) for t in (k, v))  # [F * P, heads, d]
    query, key, value = (t.transpose(0, 1)[None] for t in (q, keys, values))
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask.bias[None, None])
    out = mixed[0].transpose(0, 1).flatten(1)
    return out if mask.sees is None else out.masked_fill(~mask.sees, 0.0)
