"""What goes to a device in one copy arrives as it was, and what is derived from rows reads nothing back from the device."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.attention.cross.block_lists import key_bounds, tile_lists
from model.attention.cross.tiling import make_tiling
from model.attention.plan import make_plan
from model.context_rows import share_rows
from model.rows import PackedRows
from model.upload import ALIGNMENT, _packed, _views, upload
from moss_train.verify.layouts.subject import make_pack
from tests.model.small import packed_rows, small_config

DTYPES = [torch.int64, torch.int32, torch.int8, torch.bool, torch.float32, torch.bfloat16]
SHAPES = st.lists(st.integers(0, 5), min_size=0, max_size=3)
MADE = st.lists(st.tuples(st.sampled_from(DTYPES), SHAPES), min_size=1, max_size=6)
CONFIG = small_config()


def _tensors(made: list[tuple[torch.dtype, list[int]]]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(-9, 9, tuple(shape), generator=generator).to(dtype) for dtype, shape in made]


@given(made=MADE)
def test_every_tensor_has_its_place_in_the_block(made: list[tuple[torch.dtype, list[int]]]) -> None:
    tensors = _tensors(made)
    block, begins = _packed(tensors, pin=False)
    assert all(begin % ALIGNMENT == 0 for begin in begins)
    for tensor, view in zip(tensors, _views(block, begins, tensors), strict=True):
        assert view.dtype == tensor.dtype and view.shape == tensor.shape and torch.equal(view, tensor)


@pytest.mark.gpu
def test_nobody_waits_for_a_copy_to_the_gpu() -> None:
    for made in ([(dtype, [3, 5])] for dtype in DTYPES):
        tensors = [*_tensors(made), torch.arange(100_000), torch.zeros(0)]
        upload(tensors, "cuda")  # the pinned memory is there from now on
        torch.cuda.set_sync_debug_mode("error")
        try:
            moved = upload([*tensors, np.arange(7)], "cuda")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        for tensor, copied in zip([*tensors, torch.arange(7)], moved, strict=True):
            assert copied.is_cuda and torch.equal(copied.cpu(), tensor)


def test_rows_stay_known_on_the_host() -> None:
    rows = packed_rows(CONFIG, [(6, [1]), (3, [])], 1)
    assert rows.to("cpu") is rows and rows.on_host() is rows
    moved = rows.to("meta")
    assert moved.on_host() is rows and moved.targets is not None and moved.targets.device.type == "meta"
    # Changed rows are other rows.
    with pytest.raises(NotImplementedError):
        dataclasses.replace(moved, targets=torch.zeros(9, dtype=torch.int64, device="meta")).on_host()


SAMPLES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=4)


def _like(tensor: torch.Tensor | None) -> Any:
    return None if tensor is None else (tensor.shape, tensor.dtype)


@given(samples=SAMPLES, seed=st.integers(0, 99), targets=st.booleans(), size=st.sampled_from([1, 2]))
def test_a_plan_reads_nothing_from_the_device(samples: list[tuple[int, int]], seed: int, targets: bool, size: int) -> None:
    """On the meta device there is nothing to read: any attempt is an error."""
    drawn = [(rows, list(range(min(rows, frames)))) for rows, frames in samples]
    on_host = packed_rows(CONFIG, drawn, seed, targets)
    here, there = (share_rows([rows], size, size - 1)[0] for rows in (on_host, on_host.to("meta")))
    assert here.rows.num_rows == there.rows.num_rows and there.rows.input_ids.device.type == "meta"
    assert _like(here.targets) == _like(there.targets) and torch.equal(here.rows.cu_seqlens, there.rows.on_host().cu_seqlens)
    plan, planned = (make_plan(share.rows, CONFIG, torch.bfloat16) for share in (here, there))
    assert planned.segments == plan.segments and planned.num_rows == plan.num_rows and planned.attends == plan.attends
    for name in ("angles", "visible", "target_rows"):
        assert _like(getattr(planned, name)) == _like(getattr(plan, name)), name
    for pair in ("rope", "frame_rope"):
        assert [_like(table) for table in getattr(planned, pair)] == [_like(table) for table in getattr(plan, pair)]
    assert np.array_equal(plan.cross.begin, planned.cross.begin) and np.array_equal(plan.cross.end, planned.cross.end)
    for derive in (lambda p: tile_lists(p, 4, 8), key_bounds):
        found, expected = ([_like(x) for x in _leaves(derive(p.cross))] for p in (planned, plan))
        assert found == expected
    assert make_tiling(planned.cross).row_counts == make_tiling(plan.cross).row_counts
    assert [dataclasses.astuple(b)[:4] for b in planned.cross.blocks] == [dataclasses.astuple(b)[:4] for b in plan.cross.blocks]


def _leaves(made: Any) -> list[torch.Tensor]:
    if isinstance(made, torch.Tensor):
        return [made]
    parts = [getattr(made, f.name) for f in dataclasses.fields(made)] if dataclasses.is_dataclass(made) else list(made)
    return [leaf for part in parts for leaf in _leaves(part)]


def test_rows_of_a_batch_leave_out_what_is_not_wanted() -> None:
    batch = make_pack(CONFIG, 1, [(6, 1)], 8)
    assert PackedRows.of(batch, "meta", targets=False).targets is None
    assert PackedRows.of(batch).targets is batch.targets
