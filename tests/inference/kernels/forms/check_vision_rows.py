"""What lies between the tower's products in Triton: the numbers of the torch forms, rounded in the same places."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from inference.kernels.vision_rows import add_norm, gelu_rows, round_rows
from tests.inference.kernels.forms.where import DEVICE

WIDTHS = [(2, 3, 40), (5, 33), (3, 64), (0, 16)]


def _random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2).to(DEVICE, dtype)


def _close(found: torch.Tensor, expected: torch.Tensor, differing: float) -> None:
    """A last bit of fp32 may turn a rounding, seldom."""
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    coarse = found.dtype == torch.float8_e4m3fn
    found, expected = found.float(), expected.float()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0.13 if coarse else 2**-7)
    if found.numel():
        # torch's gelu cancels in its tail.
        assert ((found != expected) & (expected.abs() > 1e-4)).float().mean() <= differing


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_sum_and_norm(shape: tuple[int, ...], biased: bool, rounded: bool, dtype: torch.dtype) -> None:
    width = shape[-1]
    x, y = _random(*shape, seed=1, dtype=dtype), _random(*shape, seed=2, dtype=dtype)
    bias, weight, shift = _random(3, width, dtype=dtype)
    arguments = (x, y, bias if biased else None, _random(1, seed=3, dtype=dtype), weight, shift, 1e-5, rounded)
    found, expected = add_norm(*arguments, form="triton"), add_norm(*arguments, form="torch")
    assert torch.equal(found[0], expected[0])
    _close(found[1], expected[1], 0.02)
    torch.testing.assert_close(found[2], expected[2], atol=0, rtol=2**-7)


@pytest.mark.parametrize("shape", WIDTHS)
@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_gelu(shape: tuple[int, ...], biased: bool, rounded: bool) -> None:
    y, bias = _random(*shape), _random(shape[-1], seed=1) if biased else None
    found, expected = gelu_rows(y, bias, rounded, form="triton"), gelu_rows(y, bias, rounded, form="torch")
    _close(found[0], expected[0], 0.02)
    torch.testing.assert_close(found[1], expected[1], atol=0, rtol=2**-7)


def test_gelu_of_every_bf16_number() -> None:
    """At most one unit in the last place from the true one, and seldom; torch itself cancels where it is below 1e-4."""
    y = torch.arange(65536, device=DEVICE).to(torch.int16).view(torch.bfloat16)
    y = torch.where(y.isfinite(), y, 0).view(8, 8192)
    found = gelu_rows(y, None, False, form="triton")[0]
    expected = F.gelu(y.double()).to(torch.bfloat16)
    torch.testing.assert_close(found.float(), expected.float(), atol=1e-8, rtol=2**-7)
    assert (found != expected).sum() <= 256
    of_torch = torch.where(y.abs() < 1e30, F.gelu(y), expected)  # its sum overflows on a CPU
    torch.testing.assert_close(found.float(), of_torch.float(), atol=1e-6, rtol=2**-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", WIDTHS)
def test_rounding_gives_the_same_bits(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = _random(*shape, dtype=dtype)
    if x.numel():
        x.view(-1, shape[-1])[0] = 0
    found, expected = round_rows(x, form="triton"), round_rows(x, form="torch")
    assert torch.equal(found[0].view(torch.uint8), expected[0].view(torch.uint8))
    assert torch.equal(found[1], expected[1])
