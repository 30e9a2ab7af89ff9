"""Products in 8 bits: how far rounding goes, and that it goes nowhere else."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from inference.vision.encoder import FrameEncoder
from inference.vision.mode import vision_mode
from inference.vision.products import E4M3_MAX, Matrix, fp8_matrix, product, quantise_rows
from tests.inference.vision.towers import published, random_frames, vision_encoder


@given(seed=st.integers(0, 1000), exponent=st.integers(-20, 20), zeros=st.booleans())
def test_rounding_is_bounded_row_by_row(seed: int, exponent: int, zeros: bool) -> None:
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(seed)) * 2.0**exponent
    x[1] *= 1e-4
    if zeros:
        x[0] = 0
    rounded, scale = quantise_rows(x)
    error = (rounded.float() * scale - x).abs()
    largest = x.abs().amax(-1, keepdim=True)
    assert (error <= torch.maximum(x.abs() / 16, largest * 2**-10 / E4M3_MAX) * 1.001).all()
    assert not zeros or not rounded[0].float().any()


def test_a_product_is_that_of_the_rounded_numbers() -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(s, generator=generator) for s in ((2, 7, 32), (48, 32), (48,)))
    matrix = fp8_matrix(weight, bias)
    assert matrix.num_bytes == 48 * 32 + 4 * 48 + 4 * 48
    got = product(x, matrix)
    (xr, xs), (wr, ws) = quantise_rows(x), quantise_rows(weight)
    torch.testing.assert_close(got, F.linear(xr.float() * xs, wr.float() * ws, bias), atol=1e-5, rtol=1e-5)
    assert 1e-3 < (got - product(x, Matrix(weight, bias))).abs().max() < 1.5


def test_features_move_a_little() -> None:
    vision, frames = vision_encoder(), random_frames(4)
    got, exact = FrameEncoder(vision, mode=vision_mode("fp8")).encode(frames), published(vision, frames)
    cosine = F.cosine_similarity(got.flatten(1), exact.flatten(1))
    assert 1e-4 < (got - exact).abs().max()
    assert cosine.min() > 0.999


def test_the_product_of_a_gpu_takes_these_arguments() -> None:
    """On the device that computes nothing: layouts, scales and sizes that it refuses there, it refuses on a GPU."""
    x, weight, bias = (torch.empty(s, device="meta", dtype=torch.bfloat16) for s in ((3, 40, 128), (256, 128), (256,)))
    out = product(x, fp8_matrix(weight, bias))
    assert (out.shape, out.dtype) == ((3, 40, 256), torch.bfloat16)
    with pytest.raises(RuntimeError):
        product(x[..., :120], fp8_matrix(weight[:, :120], bias))


@pytest.mark.gpu
def test_the_device_multiplies_the_same_numbers() -> None:
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(s, generator=generator).bfloat16() for s in ((3, 40, 128), (256, 128), (256,)))
    here = product(x.float(), fp8_matrix(weight.float(), bias.float()))
    there = product(x.cuda(), fp8_matrix(weight.cuda(), bias.cuda()))
    torch.testing.assert_close(there.float().cpu(), here, atol=0.1, rtol=2e-2)
