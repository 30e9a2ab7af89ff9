"""Attention over pages in torch: each session's keys are gathered (a view where its pages are consecutive) for one call."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inference.kernels.torch_forms.prefix_attention import prefix_attention


def gather_rows(pages: torch.Tensor, table: Sequence[int], limit: int) -> torch.Tensor:
    """The first `limit` rows of a session.

    Args:
        pages: [pages, page_rows, ...].
        table: pages of the session, in order; at least `limit` rows.

    Returns:
        [limit, ...]; a view where the pages follow each other.
    """
    page_rows = pages.shape[1]
    used = list(table[: -(-limit // page_rows)])
    first = used[0] if used else 0
    if used == list(range(first, first + len(used))):
        block = pages[first : first + len(used)]
    else:
        index = torch.tensor(used, dtype=torch.int64, device=pages.device)
        # float8 is indexed as bytes: not every build of torch has that kernel for it.
        block = pages.view(torch.uint8)[index].view(pages.dtype) if pages.element_size() == 1 else pages[index]
    return block.flatten(0, 1)[:limit]


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    scales: torch.Tensor | None,
    table: Sequence[int],
    limits: Sequence[int],
) -> torch.Tensor:
    """One session's rows.

    Args:
        queries: [n, heads, head_dim].
        keys, values: [pages, page_rows, kv_heads, head_dim].
        scales: fp32 [2, pages, page_rows, kv_heads] of fp8 keys and values, or None.
        table: pages of the session.
        limits: key rows that each row sees; 0 gives 0.

    Returns:
        [n, heads * head_dim].
    """
    longest = max(limits)
    if longest == 0:
        return queries.new_zeros(len(limits), queries.shape[1] * queries.shape[2])
    k, v = gather_rows(keys, table, longest), gather_rows(values, table, longest)
    if scales is not None:
        k = (k.float() * gather_rows(scales[0], table, longest)[..., None]).to(queries.dtype)
        v = (v.float() * gather_rows(scales[1], table, longest)[..., None]).to(queries.dtype)
    if min(limits) == longest:
        return prefix_attention(queries, k, v, None)
    # A row that sees nothing is computed over one key and cleared: a softmax over no key is not a number.
    seen = torch.tensor([max(limit, 1) for limit in limits], dtype=torch.int64, device=queries.device)
    out = prefix_attention(queries, k, v, seen)
    blind = [row for row, limit in enumerate(limits) if limit == 0]
    if blind:
        out[blind] = 0
    return out
