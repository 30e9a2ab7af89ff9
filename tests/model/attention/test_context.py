"""Attention under context parallelism on one process: the ranks' parts, put together, are attention over everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributed import ProcessGroup

from model.attention.context import context_cross_attention, merge_partial
from model.attention.context_plan import ContextPlan, clip_ranges, self_blocks
from model.attention.cross.attention import cross_attention
from model.attention.functional import self_attention
from model.attention.kernels import attend
from model.attention.plan import RowPlan, make_plan
from model.config import VideoMllamaConfig
from model.context_rows import share_rows
from model.errors import InputError
from model.rows import PackedRows, frame_share
from tests.model.small import packed_rows, small_config

DTYPE = torch.float64


@dataclass(frozen=True)
class Place:
    """Size and rank, as plans ask a process group for them."""

    ranks: int
    own: int

    def size(self) -> int:
        return self.ranks

    def rank(self) -> int:
        return self.own


def _plans(rows: PackedRows, config: VideoMllamaConfig, size: int) -> list[RowPlan]:
    """The plan of every rank."""
    return [make_plan(rows, config, DTYPE, cast(ProcessGroup, Place(size, rank))) for rank in range(size)]


def _context(plan: RowPlan) -> ContextPlan:
    assert plan.context is not None
    return plan.context


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=DTYPE, generator=generator)


@given(lengths=st.lists(st.integers(0, 11), min_size=1, max_size=4).filter(any), size=st.sampled_from([2, 3, 4]))
def test_self_attention_of_all_ranks_is_that_of_one(lengths: list[int], size: int) -> None:
    config = small_config()
    given_rows = packed_rows(config, [(n, []) for n in lengths], 1)
    rows = share_rows([given_rows], size, 0)[0].rows
    generator = torch.Generator().manual_seed(len(lengths))
    q, k, v = (_random(generator, rows.num_rows, heads, 8) for heads in (4, 2, 2))
    expected = self_attention(q, k, v, make_plan(rows, config, DTYPE))
    for plan in _plans(rows, config, size):
        context = _context(plan)
        mine = q[context.own_rows]
        mixed = [
            attend(mine[b.row_begin : b.row_end], k[b.key_begin : b.key_end], v[b.key_begin : b.key_end], mask=b.mask)
            for b in context.self_blocks
        ]
        torch.testing.assert_close(torch.cat(mixed), expected[context.own_rows], atol=1e-12, rtol=1e-10)


def test_self_attention_is_cut_into_blocks_of_bounded_size() -> None:
    blocks = list(self_blocks(np.array([0, 400, 480]), 2, 1, 3000))
    assert [row for block in blocks for row in block[:2]][1:-1:2] == [row for block in blocks for row in block[:2]][2::2]
    assert blocks[0][0] == 0 and blocks[-1][1] == 240
    assert all(end - begin == 16 or (end - begin) * (last - first) <= 3000 for begin, end, first, last in blocks)


Samples = list[tuple[int, list[int]]]


@st.composite
def samples(draw: st.DrawFn) -> Samples:
    """Samples of some rows of which some are frames' image tokens."""
    found: Samples = []
    for rows in draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)):
        found.append((rows, sorted(draw(st.sets(st.integers(0, rows - 1), max_size=4)))))
    return found


@given(drawn=samples(), size=st.sampled_from([2, 3, 4]), mode=st.sampled_from(["skip", "zero", "attend_all"]))
def test_cross_attention_of_all_ranks_is_that_of_one(drawn: Samples, size: int, mode: str) -> None:
    """Outputs and gradients, with frames on one rank alone, on none, and rows that see frames of several ranks."""
    config = small_config(no_visible_rows=mode)
    rows = share_rows([packed_rows(config, drawn, 1)], size, 0)[0].rows
    frames, tokens = rows.num_frames, config.vision.tokens_per_frame
    generator = torch.Generator().manual_seed(frames)
    inputs = [_random(generator, rows.num_rows, 4, 8), *(_random(generator, frames, tokens, 2, 8) for _ in "kv")]
    whole, parted = ([tensor.clone().requires_grad_() for tensor in inputs] for _ in range(2))
    weights = _random(generator, rows.num_rows, 32)

    plan = make_plan(rows, config, DTYPE)
    expected = cross_attention(*whole, plan.cross, backend="torch")
    plans = _plans(rows, config, size)
    contexts = [_context(plan) for plan in plans]
    assert all(context.attends == plan.attends for context in contexts)
    order = torch.cat([context.own_rows for context in contexts])
    assert torch.equal(order[contexts[0].row_places], torch.arange(rows.num_rows))
    assert contexts[0].cross.num_rows == rows.num_rows
    out, lse = [], []
    for rank, context in enumerate(contexts):
        share = slice(*frame_share(frames, size, rank))
        part = cross_attention(
            parted[0][order], parted[1][share], parted[2][share], context.cross, backend="torch", with_lse=True
        )  # fmt: skip
        out.append(part[0].unflatten(1, (4, 8)))
        lse.append(part[1])
    merged = merge_partial(torch.stack(out), torch.stack(lse)).flatten(1)[contexts[0].row_places]
    torch.testing.assert_close(merged, expected, atol=1e-12, rtol=1e-10)
    if not plan.attends:
        return
    (expected * weights).sum().backward()
    (merged * weights).sum().backward()
    for ours, theirs in zip(parted, whole, strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-11, rtol=1e-9)


def test_rows_that_saw_nothing_anywhere_are_zero_and_have_no_gradient() -> None:
    out = torch.randn(2, 3, 4, 8, requires_grad=True)
    lse = torch.randn(2, 3, 4)
    lse[:, 1], lse[0, 2] = -torch.inf, -torch.inf
    lse.requires_grad_()
    merged = merge_partial(out, lse)
    assert not merged[1].any()
    assert torch.equal(merged[2], out[1, 2]), "one part alone is the result, bit for bit"
    merged.square().sum().backward()
    assert out.grad is not None and lse.grad is not None
    assert out.grad.isfinite().all() and lse.grad.isfinite().all()
    assert not out.grad[:, 1].any() and not lse.grad[:, 1].any() and not out.grad[0, 2].any()


def test_log_sums_far_apart_do_not_overflow() -> None:
    out = torch.tensor([[[[1.0]]], [[[3.0]]]])
    assert merge_partial(out, torch.tensor([[[400.0]], [[400.0]]])).item() == 2.0
    assert merge_partial(out, torch.tensor([[[-400.0]], [[400.0]]])).item() == 3.0


@given(
    ranges=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8),
    bounds=st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted),
)
def test_clipped_ranges_are_the_intersections(ranges: list[tuple[int, int]], bounds: list[int]) -> None:
    low, high = bounds
    begin, end = clip_ranges(np.array([a for a, _ in ranges]), np.array([b for _, b in ranges]), low, high)
    for (a, b), first, last in zip(ranges, begin, end, strict=True):
        assert set(range(low + first, low + last)) == set(range(a, b)) & set(range(low, high))
        assert 0 <= first <= last <= high - low


def test_a_backend_without_gradients_of_its_log_sums_is_refused() -> None:
    config = small_config()
    rows = share_rows([packed_rows(config, [(4, [1])], 1)], 2, 0)[0].rows
    context = _context(_plans(rows, config, 2)[0])
    empty = torch.zeros(0, 4, 8)
    with pytest.raises(InputError, match=r"attention.cross is varlen with parallel.context 2"):
        context_cross_attention(empty, empty, empty, context, "varlen")
