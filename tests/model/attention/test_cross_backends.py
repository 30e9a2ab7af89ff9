"""Every backend of cross-attention against the dense oracle, forward and backward."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import flex_attention as torch_flex

from model.attention.cross import flash, tiling
from model.attention.cross.attention import choose, cross_attention
from model.attention.cross.block_lists import tile_flags
from model.attention.cross.dense import mask_of
from model.attention.cross.rectangles import cover
from model.attention.cross.tiling import Sizes
from model.attention.plan import effective_ranges
from model.errors import InputError
from tests.model.attention.cross_cases import Case, Samples, bounds_of, dense, dense_grads, make_case, samples

SMALL = Sizes(rows=4, keys=6, row_step=2, frame_step=2, most_rows=3, most_frames=2)
"""Lets rectangles of a few rows have calls of their own."""


def case_of(drawn: Samples, ratio: int, attend_all: bool, **sizes: Any) -> Case:
    cu_seqlens, cu_frames, begin, end = bounds_of(drawn)
    ranges = effective_ranges(cu_seqlens, cu_frames, begin, end, attend_all)
    return make_case(*ranges, cu_seqlens, int(cu_frames[-1]), heads=2 * ratio, groups=2, **sizes)


def _error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest |got - wanted| / (1 + |wanted|); equal infinities count as equal."""
    got = got.detach().cpu().double()
    apart = torch.where(got == wanted, 0.0, (got - wanted).abs() / (1 + wanted.abs()))
    return float(apart.max()) if apart.numel() else 0.0


def compare(case: Case, backend: str, with_lse: bool, tolerance: float) -> float:
    """Largest error of results and gradients, the latter through the log-sums too if `with_lse`; each is asserted by name.

    Rows that see nothing get zeros.
    """
    leaves = [t.detach().requires_grad_() for t in (case.q, case.k, case.v)]
    out, lse = cross_attention(*leaves, case.plan, backend=backend, with_lse=True)
    expected_out, expected_lse = dense(case)
    near = {"atol": tolerance, "rtol": tolerance, "check_dtype": False, "check_device": False}
    torch.testing.assert_close(out.cpu(), expected_out, **near)
    torch.testing.assert_close(lse.cpu(), expected_lse, **near)
    alone = cross_attention(case.q, case.k, case.v, case.plan, backend=backend)
    torch.testing.assert_close(alone.cpu(), expected_out, **near)
    errors = [_error(out, expected_out), _error(lse, expected_lse), _error(alone, expected_out)]
    if not case.plan.attends:
        return max(errors)
    value = (out * case.grad_out).sum()
    if with_lse:
        seen = lse.detach() > -torch.inf
        value = value + (torch.where(seen, lse, 0.0) * case.grad_lse).sum()
    for name, got, wanted in zip("qkv", torch.autograd.grad(value, leaves), dense_grads(case, with_lse), strict=True):
        scale = max(float(wanted.abs().max()), 1e-3)
        torch.testing.assert_close(got.cpu() / scale, wanted / scale, msg=lambda m, name=name: f"d{name}: {m}", **near)
        errors.append(_error(got.cpu() / scale, wanted / scale))
    return max(errors)


@settings(max_examples=60)
@given(drawn=samples(), ratio=st.sampled_from([1, 2, 4]), attend_all=st.booleans(), with_lse=st.booleans())
def test_torch_equals_the_oracle(drawn: Samples, ratio: int, attend_all: bool, with_lse: bool) -> None:
    assert compare(case_of(drawn, ratio, attend_all), "torch", with_lse, 1e-10) <= 1e-10


@settings(max_examples=60)
@given(
    drawn=samples(most_frames=7), ratio=st.sampled_from([1, 2, 4]), attend_all=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)  # fmt: skip
def test_a_dense_mask_equals_the_oracle(drawn: Samples, ratio: int, attend_all: bool, dtype: torch.dtype) -> None:
    case = case_of(drawn, ratio, attend_all, dtype=dtype)
    near = 1e-10 if dtype == torch.float64 else 2e-5
    leaves = [t.detach().requires_grad_() for t in (case.q, case.k, case.v)]
    out = cross_attention(*leaves, case.plan, backend="dense")
    assert _error(out, dense(case)[0]) <= near
    if case.plan.attends:
        found = torch.autograd.grad((out * case.grad_out).sum(), leaves)
        for got, wanted in zip(found, dense_grads(case, with_lse=False), strict=True):
            assert _error(got, wanted) <= near * max(1.0, float(wanted.abs().max()))


def test_the_dense_mask_is_made_once_aligned_and_additive() -> None:
    case = make_case(np.array([0, 2, 0]), np.array([2, 2, 3]), np.array([0, 3]), 3, tokens=5, dtype=torch.float32)
    for _ in range(2):
        cross_attention(case.q, case.k, case.v, case.plan, backend="dense")
    assert list(case.plan.cache) == [("dense", torch.float32)]
    mask = mask_of(case.plan, torch.float32)
    assert mask.bias.shape == (3, 15) and mask.bias.stride() == (16, 1)
    least = torch.finfo(torch.float32).min
    wanted = torch.tensor([[0.0] * 10 + [least] * 5, [0.0] * 15, [0.0] * 15])
    assert torch.equal(mask.bias, wanted) and mask.sees is not None and mask.sees.flatten().tolist() == [True, False, True]


def test_a_dense_mask_has_no_log_sums() -> None:
    case = make_case(np.array([0]), np.array([1]), np.array([0, 1]), 1)
    with pytest.raises(InputError, match=r"attention.cross is dense, which has no log-sums; use auto, flex or torch"):
        cross_attention(case.q, case.k, case.v, case.plan, backend="dense", with_lse=True)


@settings(max_examples=60)
@given(drawn=samples(most_frames=9, most_rows=24), ratio=st.sampled_from([1, 2, 4]), attend_all=st.booleans())
def test_rectangles_equal_the_oracle(drawn: Samples, ratio: int, attend_all: bool) -> None:
    with patch.object(tiling, "SIZES", SMALL):
        assert compare(case_of(drawn, ratio, attend_all), "varlen", False, 1e-10) <= 1e-10


@settings(max_examples=25)
@given(drawn=samples(most_rows=20), ratio=st.sampled_from([1, 2]), with_lse=st.booleans())
def test_block_lists_and_mask_equal_the_oracle(drawn: Samples, ratio: int, with_lse: bool) -> None:
    # Uncompiled FlexAttention has a backward pass on the CPU too, behind a check that only says it is not for use.
    with patch.object(torch_flex, "_validate_device", lambda *_: None):
        assert compare(case_of(drawn, ratio, False, dtype=torch.float32, width=16), "flex", with_lse, 2e-5) <= 2e-5


def _plain_block_flags(begin: np.ndarray, end: np.ndarray, keys: int, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    sees = (begin[:, None] <= np.arange(keys)) & (np.arange(keys) < end[:, None])
    tiles = [[sees[i : i + rows, j : j + width] for j in range(0, keys, width)] for i in range(0, len(begin), rows)]
    some = np.array([[t.any() for t in line] for line in tiles])
    # A tile that hangs over the last key counts as partial: its missing keys are not seen.
    return some, np.array([[t.all() and t.shape[1] == width for t in line] for line in tiles])


@settings(max_examples=100)
@given(data=st.data(), rows=st.integers(1, 30), keys=st.integers(1, 40), tile=st.sampled_from([(4, 4), (3, 5), (8, 16)]))
def test_needed_and_full_tiles_are_found(data: st.DataObject, rows: int, keys: int, tile: tuple[int, int]) -> None:
    bound = st.integers(0, keys)
    begin, end = (np.array(data.draw(st.lists(bound, min_size=rows, max_size=rows)), dtype=np.int64) for _ in range(2))
    partial, full = tile_flags(begin, end, keys, *tile)
    some, every = _plain_block_flags(begin, end, keys, *tile)
    assert np.array_equal(full, every), "a full tile is one in which every row sees every key"
    assert not (some & ~(partial | full)).any(), "no needed tile is missing"
    assert not (partial & full).any()


def test_a_growing_prefix_needs_few_tiles_beyond_its_pairs() -> None:
    end = (np.arange(4096) // 16 + 1) * 101
    partial, full = tile_flags(np.zeros(4096, dtype=np.int64), end, 25856, 128, 128)
    assert (partial | full).sum() * 128 * 128 < 1.04 * end.sum()
    assert partial.sum() < 0.08 * full.sum()


@settings(max_examples=100)
@given(drawn=samples(most_frames=20, most_rows=40), long_run=st.sampled_from([2, 5, 512]))
def test_rectangles_hold_every_pair_once(drawn: Samples, long_run: int) -> None:
    cu_seqlens, cu_frames, begin, end = bounds_of(drawn)
    seen = np.zeros((len(begin), int(cu_frames[-1])), dtype=int)
    for r in cover(begin, end, cu_seqlens, long_run=long_run):
        seen[r.row_begin : r.row_end, r.frame_begin : r.frame_end] += 1
        assert not ((r.row_begin < cu_seqlens) & (cu_seqlens < r.row_end)).any(), "a rectangle crosses two samples"
    frame = np.arange(seen.shape[1])
    assert np.array_equal(seen, (begin[:, None] <= frame) & (frame < end[:, None]))


def test_a_growing_prefix_is_cut_into_halves() -> None:
    rectangles = cover(np.zeros(4096, dtype=np.int64), np.arange(4096) // 16 + 1, np.array([0, 4096]))
    parts = np.zeros(4096, dtype=int)
    for r in rectangles:
        parts[r.row_begin : r.row_end] += 1
    assert parts.max() <= 9 and len(rectangles) <= 256
    largest = sorted(rectangles, key=lambda r: -r.pairs)[:3]
    assert [(r.rows, r.frames) for r in largest] == [(2048, 129), (1024, 65), (1024, 64)]


def test_long_rectangles_get_calls_of_their_own_in_whole_steps() -> None:
    plan = make_case(np.zeros(2100, dtype=np.int64), np.full(2100, 37), np.array([0, 2100]), 37, tokens=101).plan
    made = tiling.make_tiling(plan)
    assert [(r.rows, r.frames) for r in made.alone] == [(2048, 32)]
    assert sum(a * b for a, b in zip(made.row_counts, made.frame_counts, strict=True)) == 2100 * 37 - 2048 * 32
    assert all(len(made.rows[a:b].unique()) == b - a for a, b in made.rounds)
    assert max(made.row_counts) <= 512 and max(made.frame_counts) <= 32


def test_with_nothing_to_see_the_result_is_zero() -> None:
    case = make_case(np.array([0, 2]), np.array([0, 1]), np.array([0, 2]), 3)
    out, lse = cross_attention(case.q, case.k, case.v, case.plan, backend="varlen", with_lse=True)
    assert not out.any() and (lse == -torch.inf).all()


def test_an_unknown_backend_is_refused() -> None:
    case = make_case(np.array([0]), np.array([1]), np.array([0, 1]), 1)
    with pytest.raises(InputError, match=r"attention.cross is 'triton'; use one of auto, torch, flex, flash, varlen, dense"):
        cross_attention(case.q, case.k, case.v, case.plan, backend="triton")


def test_flash_without_its_package_or_gpu_is_refused() -> None:
    case = make_case(np.array([0]), np.array([1]), np.array([0, 1]), 1)
    with pytest.raises(InputError, match="flash-attn-4"):
        cross_attention(case.q, case.k, case.v, case.plan, backend="flash")


@pytest.mark.parametrize(("width", "dtype"), [(64, torch.bfloat16), (128, torch.float32)])
def test_flash_is_refused_for_heads_and_dtypes_it_was_not_run_with(
    width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "available", lambda device: True)
    case = make_case(np.array([0]), np.array([1]), np.array([0, 1]), 1, width=width, dtype=dtype)
    with pytest.raises(InputError, match=f"heads of 128 in bf16, not of {width} in {dtype}"):
        cross_attention(case.q, case.k, case.v, case.plan, backend="flash")


@pytest.mark.parametrize(("capability", "there"), [((8, 9), False), ((9, 0), True), ((10, 0), False), ((12, 0), False)])
def test_flash_is_for_the_generation_whose_tiles_were_run(
    capability: tuple[int, int], there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert flash.available.__wrapped__(torch.device("cuda")) == there


def test_a_package_that_is_installed_and_cannot_be_loaded_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "flash_attn_4-4.0.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: flash-attn-4\nVersion: 4.0.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "cutlass", None)  # as where it is not installed
    with pytest.warns(UserWarning, match=r"flash-attn-4 is installed, but its module .* is not found.*nvidia-cutlass-dsl"):
        assert not flash.available.__wrapped__(torch.device("cuda"))


@pytest.mark.parametrize(
    ("device", "dtype", "width", "rows", "frames", "with_lse", "has_flash", "chosen"),
    [
        ("cpu", torch.bfloat16, 128, 4096, 256, False, False, "torch"),
        ("cuda", torch.bfloat16, 128, 512, 16, False, True, "torch"),
        ("cuda", torch.bfloat16, 128, 512, 16, True, True, "flash"),
        ("cuda", torch.bfloat16, 128, 4096, 64, False, True, "flash"),
        ("cuda", torch.bfloat16, 128, 4096, 64, False, False, "flex"),
        ("cuda", torch.bfloat16, 80, 4096, 64, False, True, "flex"),
        ("cuda", torch.bfloat16, 64, 4096, 64, False, True, "flex"),
        ("cuda", torch.float32, 128, 4096, 64, False, True, "torch"),
    ],
)
def test_auto_goes_by_device_dtype_size_and_package(
    device: str, dtype: torch.dtype, width: int, rows: int, frames: int, with_lse: bool, has_flash: bool, chosen: str
) -> None:
    assert choose(device, dtype, width, rows * frames * 101, with_lse=with_lse, has_flash=has_flash) == chosen


def test_auto_on_the_cpu_takes_what_torch_gives() -> None:
    case = make_case(np.zeros(5, dtype=np.int64), np.arange(5), np.array([0, 5]), 4)
    chosen = cross_attention(case.q, case.k, case.v, case.plan)
    assert torch.equal(chosen, cross_attention(case.q, case.k, case.v, case.plan, backend="torch"))
    assert not flash.available(torch.device("cpu"))
