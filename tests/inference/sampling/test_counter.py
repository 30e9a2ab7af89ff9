"""Random numbers by counter: the published sequence, and numbers that look uniform and independent."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.sampling.counter import mix, splitmix, uniform

WORD = (1 << 64) - 1


def _plain(start: int, counter: int) -> int:
    """SplitMix64 in whole numbers of any size."""
    z = (start + (counter + 1) * 0x9E3779B97F4A7C15) & WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def test_the_published_sequence() -> None:
    found = splitmix(torch.tensor(1234567), torch.arange(5))
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [int(value) & WORD for value in found] == expected


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**40))
@settings(max_examples=50, deadline=None)
def test_equal_to_whole_numbers(seed: int, counter: int) -> None:
    start = int(mix(torch.tensor(seed))) & WORD
    found = uniform(torch.tensor([seed]), torch.tensor([counter]))
    assert 0 <= float(found) < 1
    assert float(found) == (_plain(start, counter) >> 11) / 2**53


def test_numbers_are_uniform_and_those_of_neighbouring_seeds_unrelated() -> None:
    counters = torch.arange(100_000)
    rows = torch.stack([uniform(torch.tensor(seed), counters) for seed in (0, 1, 2)])
    counts = torch.histc(rows[0].float(), 100, 0, 1)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 149  # chi square, 99 degrees of freedom: 0.1 %
    related = torch.corrcoef(torch.cat([rows, rows[:1].roll(1, 1)]))
    assert float((related - torch.eye(4)).abs().max()) < 0.015
