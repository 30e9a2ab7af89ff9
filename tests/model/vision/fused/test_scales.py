"""Powers of two as scales of fp8 rows."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from model.vision.fused.scales import E4M3_MAX, LEAST, power_of_two_scale, round_rows


@given(st.floats(2.0**-90, 2.0**120))
def test_the_smallest_power_of_two_that_fits(value: float) -> None:
    amax = torch.tensor(value, dtype=torch.float32)
    scale = power_of_two_scale(amax)
    assert math.frexp(scale.item())[0] == 0.5
    assert amax.item() <= E4M3_MAX * scale.item() * (1 + 2e-7)
    assert amax.item() > E4M3_MAX * scale.item() / 2


def test_rows_of_zeros_stay_zero_and_no_number_hides_what_is_none() -> None:
    x = torch.randn(5, 48, dtype=torch.bfloat16)
    x[0], x[1, 3], x[2, 4] = 0, float("nan"), float("inf")
    rounded, scale = round_rows(x)
    assert not rounded[0].float().any() and scale[0] == LEAST
    back = rounded.float() * scale
    assert back[1].isnan().all() and back[2].isnan().all()
    assert back[3:].isfinite().all()


@given(st.integers(-120, 100), st.integers(0, 2**31))
def test_a_row_is_rounded_to_four_bits_at_every_magnitude(exponent: int, seed: int) -> None:
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(2.0**exponent).bfloat16()
    rounded, scale = round_rows(x)
    back = rounded.float() * scale
    # Half a unit of a subnormal number is 2^-10 of the scale.
    bound = torch.maximum(x.float().abs() * 2**-4, scale * 2**-10)
    assert ((back - x.float()).abs() <= bound).all()
