"""Cross-attention by blocks against a dense mask, over random bounds."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.attention.cross import blocks as blocks_module
from model.attention.cross.attention import cross_attention
from model.attention.cross.plan import CrossPlan
from model.attention.functional import self_attention
from model.attention.plan import effective_ranges, make_plan
from model.errors import InputError
from tests.model.small import packed_rows, small_config

CPU = torch.device("cpu")
Samples = list[tuple[list[tuple[int, int]], int]]


@st.composite
def samples(draw: st.DrawFn) -> Samples:
    """Per sample the ranges of its rows (any ranges, not only growing prefixes), and its number of frames."""
    found: Samples = []
    for _ in range(draw(st.integers(1, 4))):
        frames = draw(st.integers(0, 5))
        bound = st.integers(0, frames)
        ranges = draw(st.lists(st.tuples(bound, bound), min_size=0, max_size=8))
        found.append((ranges, frames))
    if not any(ranges for ranges, _ in found):
        found.append(([(0, 0)], 0))
    return found


def _bounds(drawn: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    cu_seqlens, cu_frames, begin, end = [0], [0], [], []
    for ranges, frames in drawn:
        begin += [cu_frames[-1] + a for a, _ in ranges]
        end += [cu_frames[-1] + b for _, b in ranges]
        cu_seqlens.append(cu_seqlens[-1] + len(ranges))
        cu_frames.append(cu_frames[-1] + frames)
    return tuple(np.array(x, dtype=np.int64) for x in (cu_seqlens, cu_frames, begin, end))  # type: ignore[return-value]


def _dense(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One softmax over all frames of all samples under one mask bool [T, F]."""
    tokens, groups = k.shape[1], k.shape[2]
    k, v = (t.flatten(0, 1).repeat_interleave(q.shape[1] // groups, dim=1) for t in (k, v))
    scores = torch.einsum("nhd,mhd->hnm", q, k) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask.repeat_interleave(tokens, 1), float("-inf")).softmax(-1).nan_to_num(0)
    return torch.einsum("hnm,mhd->nhd", weights, v).flatten(1)


@settings(max_examples=60)
@given(drawn=samples(), attend_all=st.booleans(), budget=st.sampled_from([1, 64, 1 << 22]))
def test_blocks_equal_a_dense_mask(drawn: Samples, attend_all: bool, budget: int) -> None:
    cu_seqlens, cu_frames, begin, end = _bounds(drawn)
    rows, frames, tokens = len(begin), int(cu_frames[-1]), 3
    ranges = effective_ranges(cu_seqlens, cu_frames, begin, end, attend_all)
    plan = CrossPlan(*ranges, cu_seqlens, frames, tokens, CPU)
    with patch.object(blocks_module, "SCORES_PER_BLOCK", budget):
        assert plan.blocks is not None
    generator = torch.Generator().manual_seed(rows)
    q = torch.randn(rows, 4, 8, dtype=torch.float64, generator=generator)
    k, v = torch.randn(2, frames, tokens, 2, 8, dtype=torch.float64, generator=generator).unbind(0)
    index = torch.arange(frames)
    mask = (torch.from_numpy(begin)[:, None] <= index) & (index < torch.from_numpy(end)[:, None])
    for row in range(rows):
        if attend_all and begin[row] >= end[row]:
            sample = int(np.searchsorted(cu_seqlens, row, side="right")) - 1
            mask[row, int(cu_frames[sample]) : int(cu_frames[sample + 1])] = True
    expected = _dense(q, k, v, mask) if frames else torch.zeros(rows, 32, dtype=torch.float64)
    torch.testing.assert_close(cross_attention(q, k, v, plan), expected, atol=1e-12, rtol=1e-10)


def test_no_mask_spans_more_than_one_sample_or_the_budget() -> None:
    config = small_config()
    rows = packed_rows(config, [(200, list(range(5, 45))), (200, list(range(3, 33)))], 1)
    with patch.object(blocks_module, "SCORES_PER_BLOCK", 2000):
        blocks = make_plan(rows, config, torch.float32).cross.blocks
    masks = [b.mask for b in blocks if b.mask is not None]
    assert masks and all(m.numel() <= 16 * 40 for m in masks)
    assert all(not (b.row_begin < 200 < b.row_end) for b in blocks)


def test_rows_that_all_see_the_same_frames_need_no_mask() -> None:
    config = small_config()
    plan = make_plan(packed_rows(config, [(20, [0])], 1), config, torch.float32)
    assert [b.mask for b in plan.cross.blocks] == [None] and plan.visible is None


def test_a_row_that_names_frames_of_another_sample_is_refused() -> None:
    config = small_config()
    rows = packed_rows(config, [(6, [1]), (6, [2])], 1)
    rows.frame_end[7] = 1
    rows.frame_begin[7] = 0
    with pytest.raises(InputError, match=r"sample 1 of the micro-batch owns the frames 1\.\.1"):
        make_plan(rows, config, torch.float32)


def test_bounds_that_do_not_end_at_the_last_row_are_refused() -> None:
    config = small_config()
    rows = packed_rows(config, [(6, [1])], 1)
    rows.cu_seqlens[-1] = 5
    with pytest.raises(InputError, match=r"cu_seqlens is \[0, 5\]"):
        make_plan(rows, config, torch.float32)


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_self_attention_stays_inside_samples(lengths: list[int]) -> None:
    config = small_config()
    rows = packed_rows(config, [(n, []) for n in lengths], 1)
    plan = make_plan(rows, config, torch.float64)
    generator = torch.Generator().manual_seed(len(lengths))
    q = torch.randn(rows.num_rows, 4, 8, dtype=torch.float64, generator=generator)
    k, v = torch.randn(2, rows.num_rows, 2, 8, dtype=torch.float64, generator=generator).unbind(0)
    order = torch.arange(rows.num_rows)
    sample = torch.repeat_interleave(torch.tensor(lengths))
    mask = (sample[:, None] == sample) & (order <= order[:, None])
    torch.testing.assert_close(self_attention(q, k, v, plan), _dense(q, k[:, None], v[:, None], mask), atol=1e-12, rtol=1e-10)
