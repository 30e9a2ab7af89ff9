"""The two halves of an fp32 weight."""

from __future__ import annotations

import struct

import torch
from hypothesis import given
from hypothesis import strategies as st

from moss_train.platform.remainders import split, whole


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_halves_make_the_same_bits(values: list[float]) -> None:
    weights = torch.tensor(values, dtype=torch.float32)
    upper, remainder = split(weights)
    assert upper.dtype == torch.bfloat16 and remainder.dtype == torch.int16
    assert torch.equal(whole(upper, remainder).view(torch.int32), weights.view(torch.int32))


@given(st.floats(min_value=2.0**-100, max_value=2.0**100, width=32))
def test_the_upper_half_is_the_nearest_bf16(value: float) -> None:
    weight = torch.tensor([value, -value], dtype=torch.float32)
    upper, _ = split(weight)
    nearest = weight.bfloat16()
    tie = struct.unpack("<I", struct.pack("<f", value))[0] & 0xFFFF == 0x8000
    assert torch.equal(upper, nearest) or tie
    assert ((upper.double() - weight.double()).abs() <= (nearest.double() - weight.double()).abs()).all()


def test_no_remainder_is_the_bf16_weight_itself() -> None:
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(whole(weight, torch.zeros(1000, dtype=torch.int16)), weight.float())
