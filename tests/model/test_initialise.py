"""Random weights: equal for equal seeds where they are drawn, whatever the layout."""

from __future__ import annotations

import pytest
import torch

from model.config import TextConfig, VideoMllamaConfig
from model.initialise import TEXT_DEVIATION, RandomWeights

CONFIG = VideoMllamaConfig(text=TextConfig(num_hidden_layers=2, cross_attention_layers=(1,), hidden_size=256, vocab_size=1000))
HEAD = "language_model.lm_head.weight"


@pytest.mark.gpu
def test_a_gpu_draws_the_same_each_time_and_with_the_same_deviation() -> None:
    one, again, other = (RandomWeights(CONFIG, seed, device="cuda") for seed in (1, 1, 2))
    host = RandomWeights(CONFIG, 1)
    assert list(one) == list(host)
    for name in list(one)[:40]:
        drawn = one[name]
        assert drawn.device.type == "cuda" and drawn.dtype == torch.float32
        assert drawn.shape == host[name].shape and torch.equal(drawn, again[name])
    assert not torch.equal(one[HEAD], other[HEAD])
    assert one[HEAD].std().item() == pytest.approx(TEXT_DEVIATION, rel=0.02)


def test_the_host_s_values_are_those_of_the_default() -> None:
    one, again = RandomWeights(CONFIG, 1), RandomWeights(CONFIG, 1, device="cpu")
    for name in list(one)[:40]:
        assert torch.equal(one[name], again[name]), name
    assert one[HEAD].std().item() == pytest.approx(TEXT_DEVIATION, rel=0.02)
    norm = next(name for name in one if "norm" in name)
    assert torch.equal(one[norm], torch.ones_like(one[norm]))
