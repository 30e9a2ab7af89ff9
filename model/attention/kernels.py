"""Scaled dot-product attention of one block of rows over one block of keys."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None) -> Tensor:
    """q [rows, heads, d], k and v [keys, groups, d] -> [rows, heads * d]; heads of a group share its keys."""
    if mask is not None and q.is_cuda and q.shape[1] != k.shape[1]:
        # The memory-efficient kernel takes a mask but no groups; without it all scores would be kept for the backward pass.
        k, v = (t.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for t in (k, v))
    mixed = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None],
        attn_mask=mask, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    return mixed[0].transpose(0, 1).flatten(1)
