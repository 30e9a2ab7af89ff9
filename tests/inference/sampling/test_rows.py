"""Rows of many sessions in one call: each is drawn as alone, as transformers' processors say, and choosing leaves no trace."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from inference.sampling import Sampler, SamplingConfig, choose_rows
from model.errors import InputError
from tests.inference.sampling.plain import drawn, processed

VOCABULARY = 40

configs = st.builds(
    SamplingConfig,
    do_sample=st.booleans(),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 5, 39, 40, 1000]),
    top_p=st.sampled_from([0.05, 0.5, 0.9, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 0.7, 1.8]),
    silence_threshold=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 2**63 - 1),
)
ids = st.lists(st.integers(0, VOCABULARY + 3), max_size=4)


@st.composite
def samplers(draw: st.DrawFn) -> Sampler:
    """A sampler in some state."""
    sampler = Sampler(draw(configs), banned=draw(ids), silence_id=7, silenced=draw(st.sampled_from([(), (1, 2)])))
    sampler.remember(draw(ids))
    for token in draw(ids):
        sampler.accept(token)
    return sampler


def _logits(rows: int, seed: int) -> torch.Tensor:
    return 3 * torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.none() | samplers(), min_size=1, max_size=6), st.integers(0, 2**32), st.booleans())
@settings(max_examples=60, deadline=None)
def test_a_row_does_not_depend_on_its_batch(rows: list[Sampler | None], seed: int, coarse: bool) -> None:
    logits = _logits(len(rows), seed)
    if coarse:  # many equal scores
        logits = logits.round()
    before = logits.clone()
    states = [sampler and sampler.state() for sampler in rows]
    together = choose_rows(logits, rows)
    assert together.tolist() == [int(choose_rows(logits[i : i + 1], [sampler])) for i, sampler in enumerate(rows)]
    assert torch.equal(logits, before)
    # Choosing again, as after a step that was undone, gives the same; and it changed no state.
    assert choose_rows(logits, rows).tolist() == together.tolist()
    assert [sampler and sampler.state() for sampler in rows] == states


@given(samplers(), samplers(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_choosing_ahead_equals_choosing_after_reading(one: Sampler, two: Sampler, seed: int) -> None:
    first, second = _logits(2, seed), _logits(2, seed + 1)
    tokens = choose_rows(first, [one, two])
    assume(bool((tokens >= 0).all()))
    ahead = choose_rows(second, [one, two], extra=[1, 0], following=torch.stack([tokens[0], torch.tensor(-1)]))
    one.accept(int(tokens[0]))
    assert ahead.tolist() == choose_rows(second, [one, two]).tolist()


@given(configs, ids.map(lambda found: [i for i in found if i < VOCABULARY]), st.integers(0, 9), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_equal_to_the_processors_of_transformers(config: SamplingConfig, said: list[int], accepted: int, seed: int) -> None:
    config = dataclasses.replace(config, silence_threshold=0.0)  # a rule that transformers does not have
    logits = _logits(1, seed)[0]
    sampler = Sampler(config)
    sampler.remember(said)
    sampler.accepted = accepted
    probabilities = processed(logits, config, said)
    if config.do_sample:
        expected, distance = drawn(probabilities, config.seed, accepted)
        assume(distance > 1e-6)
    else:
        expected = int(probabilities.argmax())
    assert sampler.choose(logits) == expected


def test_drawn_as_often_as_likely() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, 0.5, -1.0]])
    draws = 20_000
    rows = [Sampler(SamplingConfig(do_sample=True, temperature=1.5, seed=seed)) for seed in range(100)]
    counts = torch.zeros(5)
    for _ in range(draws // len(rows)):
        tokens = choose_rows(logits.expand(len(rows), -1), rows)
        counts += torch.bincount(tokens, minlength=5)
        for sampler, token in zip(rows, tokens.tolist(), strict=True):
            sampler.accept(token)
    likely = torch.softmax(logits[0] / 1.5, -1) * draws
    assert float(((counts - likely) ** 2 / likely).sum()) < 18.5  # chi square, 4 degrees of freedom: 0.1 %


def test_equal_scores_are_kept_or_dropped_together() -> None:
    logits = torch.tensor([2.0, 1.0, 1.0, 1.0, 0.0])
    for narrow in ({"top_k": 2}, {"top_p": 0.6}, {"top_k": 3, "top_p": 0.9}):
        sampler = Sampler(SamplingConfig(do_sample=True, seed=3, **narrow))  # type: ignore[arg-type]
        assert {sampler.choose(logits) for _ in range(100)} == {0, 1, 2, 3}


@pytest.mark.parametrize("k", [60, 900, 3000])
def test_large_vocabularies(k: int) -> None:
    """Each way of finding the k-th value, with a top-p that cuts inside, against the processors."""
    logits = 2 * torch.randn(5000, generator=torch.Generator().manual_seed(k))
    config = SamplingConfig(do_sample=True, top_k=k, top_p=0.8, seed=11)
    probabilities = processed(logits, config, [])
    sampler = Sampler(config)
    for accepted in range(20):
        expected, distance = drawn(probabilities, 11, accepted)
        token = sampler.choose(logits)
        assert token == expected or distance < 1e-6


@pytest.mark.parametrize("sampled", [False, True])
def test_rows_without_a_valid_score_end_with_one_sentence(sampled: bool) -> None:
    config = SamplingConfig(do_sample=sampled, top_p=0.9, top_k=3)
    broken = torch.tensor([[0.0, float("nan"), 1.0], [0.0, float("inf"), 1.0], [1.0, 2.0, 3.0], [1.0, 3.0, float("-inf")]])
    rows = [Sampler(config), Sampler(config), Sampler(config, banned=[0, 1, 2]), Sampler(config, banned=[0])]
    assert choose_rows(broken, rows).tolist() == [-1, -1, -1, 1]
    for sampler, scores in zip(rows[:3], broken, strict=False):
        with pytest.raises(InputError, match=r"no token can be chosen: .* not finite or every token is banned"):
            sampler.choose(scores)
        assert sampler.accepted == 0
    assert Sampler(config, banned=[1]).choose(broken[0]) in (0, 2)


def test_tokens_that_become_silence() -> None:
    logits = torch.tensor([0.0, 5.0, 1.0, 2.0])
    sampler = Sampler(SamplingConfig(repetition_penalty=2.0), silence_id=3, silenced=[1])
    assert sampler.choose(logits) == 3
    assert sampler.state().seen == (3,)
    with pytest.raises(InputError, match=r"tokens \[1\] shall become silence"):
        Sampler(SamplingConfig(), silenced=[1])
    with pytest.raises(InputError, match="silence token is 9, the head has 4 rows"):
        Sampler(SamplingConfig(), silence_id=9).choose(logits)


@given(configs, st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_restored_sampler_goes_on(config: SamplingConfig, seed: int) -> None:
    sampler, logits = Sampler(config, silence_id=2), _logits(8, seed)
    for row in logits[:4]:
        sampler.choose(row)
    other = Sampler(config, silence_id=2)
    other.choose(logits[7])
    other.restore(sampler.state())
    assert [sampler.choose(row) for row in logits[4:]] == [other.choose(row) for row in logits[4:]]
