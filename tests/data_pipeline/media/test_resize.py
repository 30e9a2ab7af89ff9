"""Fitting into the square."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_pipeline.media.resize import fit_frames, fitted_size


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1920, 1080), (560, 315)), ((720, 1280), (315, 560)), ((320, 240), (560, 420)), ((300, 168), (560, 313))],
)
def test_sizes_of_the_rule(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted_size(*size, 560) == expected


@given(width=st.integers(1, 4000), height=st.integers(1, 4000))
def test_one_side_fills_the_square_and_neither_exceeds_it(width: int, height: int) -> None:
    new = fitted_size(width, height, 64)
    assert max(new) == 64 and min(new) >= 1


@pytest.mark.parametrize("shape", [(90, 160), (160, 90), (20, 30), (64, 64), (300, 17)])
def test_pixels_equal_pillow_s_antialiased_bilinear_within_one_level(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (*shape, 3), dtype=np.uint8)
    fitted = fit_frames(torch.from_numpy(pixels)[None], 64)[0].permute(1, 2, 0).numpy()
    width, height = fitted_size(shape[1], shape[0], 64)
    expected = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    assert np.abs(fitted[:height, :width].astype(int) - expected).max() <= 1
    assert fitted[height:].sum() == 0 and fitted[:, width:].sum() == 0


def test_several_frames_are_fitted_like_each_alone() -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 30, 50, 3), dtype=np.uint8))
    assert torch.equal(fit_frames(frames, 32), torch.cat([fit_frames(f[None], 32) for f in frames]))
