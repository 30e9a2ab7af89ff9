"""The sampler: bans, threshold, penalty and the three ways of narrowing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.sampling import Sampler, SamplingConfig, choose_rows
from model.errors import InputError

LOGITS = torch.tensor([1.0, 3.0, 2.0, 0.5])


def test_greedy_takes_the_best_allowed() -> None:
    assert Sampler(SamplingConfig()).choose(LOGITS) == 1
    assert Sampler(SamplingConfig(), banned=[1, 99]).choose(LOGITS[None]) == 2
    assert LOGITS[1] == 3.0


def test_silence_needs_its_threshold() -> None:
    probability = float(torch.softmax(LOGITS, -1)[1])
    below, above = SamplingConfig(silence_threshold=probability - 0.01), SamplingConfig(silence_threshold=probability + 0.01)
    assert Sampler(below, silence_id=1).choose(LOGITS) == 1
    assert Sampler(above, silence_id=1).choose(LOGITS) == 2
    assert Sampler(above, silence_id=0).choose(LOGITS) == 1


def test_repetition_penalty_counts_what_was_said() -> None:
    sampler = Sampler(SamplingConfig(repetition_penalty=2.0))
    assert [sampler.choose(LOGITS) for _ in range(2)] == [1, 2]
    prompted = Sampler(SamplingConfig(repetition_penalty=2.0))
    prompted.remember([1, 2])
    assert prompted.choose(torch.tensor([1.1, 2.0, 2.0, -1.0])) == 0


@given(st.integers(0, 1000), st.integers(1, 4))
def test_top_k_stays_inside(seed: int, k: int) -> None:
    sampler = Sampler(SamplingConfig(do_sample=True, top_k=k, temperature=5.0, seed=seed))
    best = set(LOGITS.topk(k).indices.tolist())
    assert {sampler.choose(LOGITS) for _ in range(8)} <= best


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    best, second = torch.softmax(LOGITS, -1).topk(2).values.tolist()
    only_best = Sampler(SamplingConfig(do_sample=True, top_p=best - 0.01))
    assert {only_best.choose(LOGITS) for _ in range(50)} == {1}
    two = Sampler(SamplingConfig(do_sample=True, top_p=best + second / 2))
    assert {two.choose(LOGITS) for _ in range(200)} == {1, 2}


def test_sampling_follows_the_seed_and_the_distribution() -> None:
    draws = [[Sampler(SamplingConfig(do_sample=True, seed=s)).choose(LOGITS) for s in range(300)] for _ in range(2)]
    assert draws[0] == draws[1]
    frequency = draws[0].count(1) / 300
    assert abs(frequency - float(torch.softmax(LOGITS, -1)[1])) < 0.1


@pytest.mark.parametrize("temperature", [1e-6, 1e6])
def test_extreme_temperatures_choose_the_best_or_any(temperature: float) -> None:
    rows = [Sampler(SamplingConfig(do_sample=True, temperature=temperature, seed=seed), banned=[3]) for seed in range(200)]
    scores = 1e4 * torch.randn(1, 40, generator=torch.Generator().manual_seed(0))
    scores[0, 3] = 1e6
    found = set(choose_rows(scores.expand(200, 40), rows).tolist())
    allowed = scores[0].clone()
    allowed[3] = float("-inf")
    assert found == {int(allowed.argmax())} if temperature < 1 else found <= set(range(40)) - {3} and len(found) > 30


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": 0.0},
        {"temperature": 1e-40},
        {"temperature": 1e300},
        {"repetition_penalty": 1e-300},
        {"top_k": -1},
        {"top_k": 2**63},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"repetition_penalty": 0.0},
        {"silence_threshold": 1.0},
        {"temperature": float("inf")},
        {"repetition_penalty": float("inf")},
        {"seed": 2**63},
    ],
)
def test_bad_settings_name_their_field(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        SamplingConfig(**bad)  # type: ignore[arg-type]
