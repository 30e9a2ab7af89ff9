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
from model.attention.functional import self_attention
from model.attention.plan import effective_ranges, make_plan
from model.errors import InputError
from tests.model.attention.cross_cases import Samples, bounds_of, dense_of, make_case, samples
from tests.model.small import packed_rows, small_config


@settings(max_examples=60)
@given(drawn=samples(), attend_all=st.booleans(), budget=st.sampled_from([1, 64, 1 << 22]))
def test_blocks_equal_a_dense_mask(drawn: Samples, attend_all: bool, budget: int) -> None:
    """The frames that rows end up seeing are worked out here again, sample by sample."""
    cu_seqlens, cu_frames, begin, end = bounds_of(drawn)
    case = make_case(*effective_ranges(cu_seqlens, cu_frames, begin, end, attend_all), cu_seqlens, int(cu_frames[-1]))
    index = torch.arange(case.plan.num_frames)
    mask = (torch.from_numpy(begin)[:, None] <= index) & (index < torch.from_numpy(end)[:, None])
    for row in range(len(begin)):
        if attend_all and begin[row] >= end[row]:
            sample = int(np.searchsorted(cu_seqlens, row, side="right")) - 1
            mask[row, int(cu_frames[sample]) : int(cu_frames[sample + 1])] = True
    with patch.object(blocks_module, "SCORES_PER_BLOCK", budget):
        found = cross_attention(case.q, case.k, case.v, case.plan)
    torch.testing.assert_close(found, dense_of(case.q, case.k, case.v, mask)[0], atol=1e-12, rtol=1e-10)


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
    torch.testing.assert_close(
        self_attention(q, k, v, plan), dense_of(q, k[:, None], v[:, None], mask)[0], atol=1e-12, rtol=1e-10
    )
