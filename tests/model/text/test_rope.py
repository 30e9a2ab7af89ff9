"""Rotary tables: known frequencies, the rotation itself, the bf16 switch."""

from __future__ import annotations

import dataclasses

import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import RopeScaling, TextConfig
from model.text.rope import apply_rope, inverse_frequencies, rope_tables


def test_frequencies_of_the_published_sizes() -> None:
    frequencies = inverse_frequencies(TextConfig())
    torch.testing.assert_close(frequencies[:4], torch.tensor([1.0, 0.814617, 0.663601, 0.540581]), atol=1e-6, rtol=0)
    torch.testing.assert_close(frequencies[63], torch.tensor(3.068926e-07), atol=1e-13, rtol=1e-5)
    assert frequencies.shape == (64,)


def test_factor_one_leaves_the_frequencies_alone() -> None:
    plain = dataclasses.replace(TextConfig(), rope_scaling=RopeScaling(factor=1.0))
    expected = 500000.0 ** (-torch.arange(64, dtype=torch.float64) / 64)
    torch.testing.assert_close(inverse_frequencies(plain).double(), expected, atol=0, rtol=1e-5)


def test_bf16_rounds_the_frequencies_and_not_the_angles() -> None:
    frequencies = inverse_frequencies(TextConfig(), "bf16")
    assert torch.equal(frequencies, frequencies.bfloat16().float())
    assert 0.002 < float(frequencies[1] / inverse_frequencies(TextConfig())[1] - 1) < 0.0025
    cos, _ = rope_tables(TextConfig(), torch.tensor([1001]), "bf16")
    torch.testing.assert_close(cos[0, 1], torch.cos(1001 * frequencies[1]))


@given(position=st.integers(0, 5000), shift=st.integers(0, 5000))
def test_scores_depend_on_the_distance_only(position: int, shift: int) -> None:
    config = TextConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=4)
    q, k = torch.randn(2, 1, 4, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(position)).unbind(0)

    def score(at: int, distance: int) -> torch.Tensor:
        cos, sin = rope_tables(config, torch.tensor([at, at + distance]), dtype=torch.float64)
        return (apply_rope(q, cos[:1], sin[:1]) * apply_rope(k, cos[1:], sin[1:])).sum(-1)

    torch.testing.assert_close(score(0, 7), score(position + shift, 7), atol=5e-3, rtol=0)


def test_every_token_of_a_frame_turns_by_the_frame_s_position() -> None:
    config = TextConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=4)
    cos, sin = rope_tables(config, torch.tensor([3, 9]))
    x = torch.randn(2, 5, 4, 16)
    turned = apply_rope(x, cos, sin)
    for token in range(5):
        torch.testing.assert_close(turned[:, token], apply_rope(x[:, token], cos, sin))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
