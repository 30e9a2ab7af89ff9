"""Attention in which every query sees a prefix of the keys: both kinds of layer need nothing else."""

from __future__ import annotations

import torch
import torch.nn.functional as F

_MASK_ELEMENTS = 1 << 26
"""Rows are taken in blocks so that a mask never holds more elements than this."""


def prefix_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, limits: torch.Tensor | None
) -> torch.Tensor:
    """Grouped-query attention without repeating keys.

    Args:
        queries: [n, heads, head_dim].
        keys: [S, kv_heads, head_dim], values: the same shape; any strides.
        limits: int64 [n], row i sees the keys 0 .. limits[i] - 1, at least one; None lets every row see all S keys.

    Returns:
        [n, heads * head_dim].
    """
    n, heads, dim = queries.shape
    kv_heads = keys.shape[1]
    group = heads // kv_heads
    k, v = keys.transpose(0, 1).unsqueeze(0), values.transpose(0, 1).unsqueeze(0)  # [1, kv_heads, S, head_dim]
    if n == 1 and limits is None:
        single = F.scaled_dot_product_attention(queries.view(1, kv_heads, group, dim), k, v)
        return single.reshape(1, heads * dim)
    rows = n if limits is None else max(1, _MASK_ELEMENTS // (group * keys.shape[0]))
    blocks = []
    for begin in range(0, n, rows):
        q = queries[begin : begin + rows]
        m = q.shape[0]
        # The heads of a group become rows of one head: [1, kv_heads, m * group, head_dim].
        folded = q.view(m, kv_heads, group, dim).transpose(0, 1).reshape(1, kv_heads, m * group, dim)
        mask = None
        if limits is not None:
            seen = torch.arange(keys.shape[0], device=queries.device) < limits[begin : begin + rows, None]  # [m, S]
            mask = seen.repeat_interleave(group, dim=0)
        out = F.scaled_dot_product_attention(folded, k, v, attn_mask=mask)
        blocks.append(out.view(kv_heads, m, group, dim).transpose(0, 1).reshape(m, heads * dim))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)
