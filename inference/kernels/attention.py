"""Attention of rows over the pages of their sessions: one operation for self and cross layers, decode and prefill."""

from __future__ import annotations

import torch

from inference.kernels.torch_forms.paged_attention import attend
from inference.model.rows import PagedView
from model.kernels.select import Form, choose_form


def paged_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor | None,
    view: PagedView,
    *,
    form: Form | None = None,
) -> torch.Tensor:
    """Grouped-query attention, softmax in fp32, scaled by 1 / sqrt(head_dim); keys are never repeated.

    Args:
        queries: [N, heads, head_dim]; any head_dim, multiples of 16 are fastest.
        keys, values: [pages, page_rows, kv_heads, head_dim], in the queries' dtype or float8_e4m3fn; any strides but that of
            the last axis, which is 1. One layer's part of a pool.
        scales: fp32 [2, pages, page_rows, kv_heads], of fp8 keys and values: what is stored times its scale is meant.
        view: which rows of which pages each query sees.
        form: overrides the choice by device.

    Returns:
        [N, heads * head_dim] in the queries' dtype; exactly 0 for rows with limit 0.

    The Triton form reads `view.tables`, `view.session` and `view.limits` on the device alone and has one shape of launch for
    one shape of `view.tables`, so it can be part of a CUDA graph. The torch form needs `view.host_groups()`.
    """
    if choose_form(queries.device, form) == "triton":
        from inference.kernels.triton_forms.paged_attention import paged_attention as launch

        return launch(queries, keys, values, scales, view.tables, view.session, view.limits)
    groups = view.host_groups()
    found = [attend(queries[group.begin : group.end], keys, values, scales, group.table, group.limits) for group in groups]
    if not found:
        return queries.new_zeros(0, queries.shape[1] * queries.shape[2])
    return found[0] if len(found) == 1 else torch.cat(found)
