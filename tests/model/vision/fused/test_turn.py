"""Fp8 rows as columns."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.vision.fused.scales import round_rows
from model.vision.fused.turn import columns, largest, turn


@given(st.integers(1, 50), st.integers(1, 7), st.integers(0, 2**31))
def test_rows_of_like_size_keep_every_bit(rows: int, sixteens: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # 1 to 2 in size: subnormal numbers of the common scale are far off.
    x = (torch.rand((rows, 16 * sixteens), generator=generator) + 1).bfloat16()
    values, scale = round_rows(x * torch.randint(-1, 2, x.shape, generator=generator) * 2.0 ** torch.randint(0, 5, (rows, 1)))
    columns, common = turn(values, scale)
    assert columns.shape == (16 * sixteens, -(-rows // 16) * 16) and columns.is_contiguous()
    assert torch.equal(columns[:, :rows].float() * common, (values.float() * scale).t())
    assert not columns[:, rows:].float().any()


def test_small_rows_lose_what_a_large_row_hides() -> None:
    x = torch.ones(3, 16)
    x[1] *= 2.0**-13
    x[2] *= 2.0**-30
    values, scale = round_rows(x)
    columns, common = turn(values, scale)
    back = columns.float() * common
    assert torch.equal(back[:, 0], x[0]) and not back[:, 2].any()
    assert (back[:, 1] - x[1]).abs().max() <= common.item() * 2**-10


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_row_that_is_no_number_is_seen_in_every_sum(bad: float) -> None:
    x = torch.ones(4, 16)
    x[2, 3] = bad
    columns, common = turn(*round_rows(x))
    assert not (columns.float() * common).sum(1).isfinite().any()


@given(st.integers(0, 50), st.integers(1, 7), st.integers(0, 30), st.integers(0, 2**31))
def test_columns_at_once_are_turned_rows_but_for_numbers_rounded_twice(rows: int, sixteens: int, spread: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((rows, 16 * sixteens), generator=generator)
    x = (x * 2.0 ** -torch.randint(0, spread + 1, (rows, 1), generator=generator)).bfloat16()
    values, scale = round_rows(x)
    expected, found = turn(values, scale), columns(x, largest(scale))
    assert torch.equal(found.scale, expected.scale) and found.columns.shape == expected.columns.shape
    once, twice, exact = found.columns[:, :rows].float(), expected.columns[:, :rows].float(), x.float().t() / found.scale
    normal = exact.abs() >= 2.0**-6
    assert torch.equal(once[normal], twice[normal]) and not found.columns[:, rows:].float().any()
    assert ((once - twice).abs() <= 2.0**-9).all() and ((once - exact).abs() <= (twice - exact).abs()).all()


def test_zeros_and_nothing() -> None:
    columns, common = turn(*round_rows(torch.zeros(5, 32)))
    assert not columns.float().any() and common.isfinite()
    assert turn(torch.zeros(0, 32, dtype=torch.float8_e4m3fn), torch.zeros(0, 1)).columns.shape == (32, 0)
