"""Rounding to fp8: the bound of every element's error, and what has no finite value."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.quantize import dequantize_rows, quantize_rows

dtypes = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@given(
    st.integers(1, 5),
    st.sampled_from([1, 7, 128]),
    dtypes,
    st.sampled_from([1e-14, 1e-3, 1.0, 3e3]),
    st.sampled_from([0, 1, 6]),
    st.integers(0, 2**32),
)
@settings(max_examples=40, deadline=None)
def test_every_element_is_within_its_bound(n: int, d: int, dtype: torch.dtype, size: float, spread: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, d, generator=generator) * 10 ** (spread * torch.rand(n, 3, d, generator=generator) - spread)
    x = (x * size).to(dtype)
    quantised, factor = quantize_rows(x)
    assert quantised.dtype == torch.float8_e4m3fn and quantised.shape == x.shape
    assert factor.dtype == torch.float32 and factor.shape == x.shape[:-1]
    error = (dequantize_rows(quantised, factor).double() - x.double()).abs()
    bound = torch.maximum(x.double().abs() / 16, factor.double()[..., None] * 2.0**-10)
    assert bool((error <= bound * (1 + 1e-5)).all())


def test_the_largest_magnitude_is_exact_to_fp32_and_zeros_stay() -> None:
    x = torch.tensor([[0.3, -7.0, 1.0], [0.0, 0.0, 0.0]])
    quantised, factor = quantize_rows(x)
    assert quantised[0, 1] == -448
    assert torch.allclose(dequantize_rows(quantised, factor)[0, 1], x[0, 1], rtol=1e-6)
    assert torch.equal(dequantize_rows(quantised, factor)[1], x[1])


def test_what_is_not_finite_does_not_become_a_number() -> None:
    x = torch.tensor([[1.0, float("nan")], [1.0, float("inf")], [1.0, 2.0]])
    found = dequantize_rows(*quantize_rows(x))
    assert bool(found[:2].isnan().any(-1).all()) and bool(found[2].isfinite().all())
