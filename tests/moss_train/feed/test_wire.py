"""What a replica's reading rank hands out: everything but pixels, bit for bit."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.packing.batch import PackedMicroBatch
from moss_train.feed.wire import pack_rows, unpack_rows, without_pixels
from tests.moss_train.packs import make_pack, tiny_config

samples = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 5)), min_size=1, max_size=3)


def _sent(batches: list[PackedMicroBatch]) -> list[PackedMicroBatch]:
    content = pack_rows(batches)
    return unpack_rows(torch.frombuffer(bytearray(content), dtype=torch.uint8))


@given(st.lists(samples, min_size=0, max_size=3), st.sampled_from([None, 4]))
def test_rows_arrive_and_pixels_do_not(packs: list[list[tuple[int, int]]], classes: int | None) -> None:
    batches = [make_pack(tiny_config(), i, pack, 48, classes) for i, pack in enumerate(packs)]
    got = _sent(batches)
    assert len(got) == len(batches)
    for one, two in zip(batches, got, strict=True):
        expected = without_pixels(one)
        for field in dataclasses.fields(PackedMicroBatch):
            value, other = getattr(expected, field.name), getattr(two, field.name)
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, other) and value.dtype == other.dtype, field.name
            else:
                assert value == other, field.name
        assert two.num_frames == one.num_frames and two.frames.shape == one.frames.shape
        assert two.frames.untyped_storage().nbytes() <= 1 and two.dense_labels is None


def test_a_step_of_long_packs_is_a_small_message() -> None:
    """Some 35 bytes a row; the pixels of one frame alone are nearly a megabyte at full size."""
    batches = [make_pack(tiny_config(), i, [(4000, 90)], 4096) for i in range(2)]
    assert len(pack_rows(batches)) < 40 * 2 * 4096
