"""What the kernels compute, said once more in fp64, row by row and head by head; and random cases for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

from inference.model.rows import PagedView

FP8 = torch.float8_e4m3fn


@dataclass
class Case:
    """One call of `paged_attention`."""

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    scales: torch.Tensor | None
    view: PagedView

    def to(self, device: str) -> Case:
        moved = [None if t is None else t.to(device) for t in (self.queries, self.keys, self.values, self.scales)]
        view = PagedView(self.view.tables.to(device), self.view.session.to(device), self.view.limits.to(device))
        assert moved[0] is not None and moved[1] is not None and moved[2] is not None
        return Case(moved[0], moved[1], moved[2], moved[3], view)


# heads, kv_heads, head_dim, page_rows
SHAPES = [(4, 2, 16, 5), (8, 2, 16, 7), (3, 1, 48, 4), (8, 2, 32, 101), (4, 4, 16, 64)]


@st.composite
def cases(draw: st.DrawFn, *, dtype: torch.dtype = torch.float32, fp8: bool = False, most_rows: int = 7) -> Case:
    """Sessions with tables in any order, rows of any session in any order, limits from nothing to the whole table."""
    heads, kv_heads, dim, page_rows = draw(st.sampled_from(SHAPES))
    sessions, width = draw(st.integers(1, 3)), draw(st.integers(1, 1 if page_rows > 64 else 3))
    count = draw(st.integers(1, most_rows))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    pages = sessions * width + 2
    if draw(st.booleans()):
        order = torch.arange(1, pages - 1)
    else:
        order = torch.randperm(pages - 1, generator=generator)[: sessions * width] + 1
    tables = order.view(sessions, width).int()
    session = torch.tensor(draw(st.lists(st.integers(0, sessions - 1), min_size=count, max_size=count)), dtype=torch.int32)
    full = width * page_rows
    limits = torch.tensor(draw(st.lists(st.integers(0, full), min_size=count, max_size=count)), dtype=torch.int32)
    shape = (pages, page_rows, kv_heads, dim)
    keys, values = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    queries = torch.randn(count, heads, dim, generator=generator).to(dtype)
    scales = None
    if fp8:
        keys, values = keys.to(FP8), values.to(FP8)
        scales = torch.rand(2, *shape[:3], generator=generator) + 0.5
    else:
        keys[0] = values[0] = float("nan")  # the page of padding is in no table
    return Case(queries, keys, values, scales, PagedView(tables, session, limits))


def attention(case: Case) -> torch.Tensor:
    """fp64 [N, heads * head_dim]."""
    count, heads, dim = case.queries.shape
    page_rows, kv_heads = case.keys.shape[1:3]
    keys, values = case.keys.double(), case.values.double()
    if case.scales is not None:
        keys, values = keys * case.scales[0, ..., None], values * case.scales[1, ..., None]
    found = torch.zeros(count, heads, dim, dtype=torch.float64)
    for row in range(count):
        table = case.view.tables[case.view.session[row]].tolist()
        at = [(table[i // page_rows], i % page_rows) for i in range(int(case.view.limits[row]))]
        for head in range(heads if at else 0):
            own = head // (heads // kv_heads)
            k = torch.stack([keys[page, place, own] for page, place in at])
            v = torch.stack([values[page, place, own] for page, place in at])
            found[row, head] = torch.softmax(k @ case.queries[row, head].double() * dim**-0.5, 0) @ v
    return found.flatten(1)
