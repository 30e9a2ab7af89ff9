"""Attention over pages in Triton, held against fp64 and against the torch form."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.kernels import paged_attention
from inference.kernels.triton_forms.paged_attention import Launch, launch_shape
from inference.kernels.triton_forms.paged_attention import paged_attention as launch
from inference.model.rows import PagedView
from tests.inference.kernels.forms.where import DEVICE, INTERPRETED, few
from tests.inference.kernels.oracle import Case, attention, cases

LAUNCHES = [None, Launch(4, 32, 1), Launch(4, 64, 3), Launch(16, 32, 2)]


def _run(case: Case, shape: Launch | None) -> torch.Tensor:
    there = case.to(DEVICE)
    view = there.view
    found = launch(there.queries, there.keys, there.values, there.scales, view.tables, view.session, view.limits, shape)
    assert not found[view.limits == 0].any(), "a row that sees nothing is not 0"
    return found.cpu()


@few
@given(cases(most_rows=5), st.sampled_from(LAUNCHES))
def test_fp32(case: Case, shape: Launch | None) -> None:
    found = _run(case, shape)
    torch.testing.assert_close(found.double(), attention(case), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, paged_attention(case.queries, case.keys, case.values, None, case.view))


@few
@given(cases(dtype=torch.bfloat16, most_rows=4), st.sampled_from(LAUNCHES))
def test_bf16(case: Case, shape: Launch | None) -> None:
    torch.testing.assert_close(_run(case, shape).double(), attention(case), atol=2e-2, rtol=2e-2)


@few
@given(cases(fp8=True, most_rows=4), st.sampled_from(LAUNCHES))
def test_fp8(case: Case, shape: Launch | None) -> None:
    torch.testing.assert_close(_run(case, shape).double(), attention(case), atol=1e-5, rtol=1e-5)


def test_many_rows_take_wider_tiles() -> None:
    torch.manual_seed(0)
    count, width, page_rows = 21, 3, 8
    view_limits = torch.arange(1, count + 1, dtype=torch.int32)
    view = PagedView(torch.tensor([[2, 0, 1]], dtype=torch.int32), torch.zeros(count, dtype=torch.int32), view_limits)
    case = Case(torch.randn(count, 4, 16), *torch.randn(2, 4, page_rows, 1, 16), None, view)
    assert launch_shape(count, 4, 1, 16, width, page_rows, 4).tile == 16
    torch.testing.assert_close(_run(case, None).double(), attention(case), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", [None, Launch(16, 64, 1)], ids=["shares", "whole"])
def test_a_tile_of_two_sessions_walks_over_many_blocks_for_each(shape: Launch | None) -> None:
    """Heads and types as of the 11B model, where loads run ahead of the products."""
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(20, 4, 128, generator=generator).bfloat16()
    keys, values = torch.randn(2, 8, 64, 1, 128, generator=generator).bfloat16()
    tables = torch.tensor([[2, 0, 1, 5], [3, 7, 6, 4]], dtype=torch.int32)
    session = torch.tensor([0, 1] * 10, dtype=torch.int32)
    limits = torch.tensor([*range(190, 200), *range(246, 256)], dtype=torch.int32)
    limits[4] = 0
    case = Case(queries, keys, values, None, PagedView(tables, session, limits))
    torch.testing.assert_close(_run(case, shape).double(), attention(case), atol=5e-3, rtol=2e-2)


@pytest.mark.parametrize(("rows", "splits"), [(1, 33), (4, 33), (16, 8), (64, 16), (320, 3), (2048, 1)])
def test_launches_fill_the_device(rows: int, splits: int) -> None:
    assert launch_shape(rows, 32, 8, 128, 256, 101, 132).splits == splits


@pytest.mark.skipif(INTERPRETED, reason="a CUDA graph needs a GPU")
def test_a_graph_follows_the_integers_on_the_device() -> None:
    torch.manual_seed(0)
    pages, page_rows = 12, 101
    keys, values = torch.randn(2, pages, page_rows, 2, 64, device=DEVICE, dtype=torch.float32)
    queries = torch.randn(3, 8, 64, device=DEVICE)
    tables = torch.zeros(2, 5, dtype=torch.int32, device=DEVICE)
    session, limits = torch.zeros(3, dtype=torch.int32, device=DEVICE), torch.zeros(3, dtype=torch.int32, device=DEVICE)
    view = PagedView(tables, session, limits)
    paged_attention(queries, keys, values, None, view)  # compiles
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = paged_attention(queries, keys, values, None, view)
    for seed in range(3):
        torch.manual_seed(seed)
        tables.copy_(torch.randperm(pages)[:10].view(2, 5).int())
        session.copy_(torch.randint(0, 2, (3,)))
        limits.copy_(torch.randint(0, 5 * page_rows + 1, (3,)))
        graph.replay()
        there = PagedView(tables.cpu(), session.cpu(), limits.cpu())
        expected = attention(Case(queries.cpu(), keys.cpu(), values.cpu(), None, there))
        torch.testing.assert_close(found.cpu().double(), expected, atol=1e-5, rtol=1e-5)
