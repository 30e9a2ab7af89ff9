"""Random numbers by counter: the published sequence, and numbers that look uniform and independent."""

from __future__ import annotations

import torch

from inference.sampling.counter import splitmix, uniform


def test_the_published_sequence() -> None:
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [splitmix(1234567, counter) for counter in range(5)] == expected


def test_every_seed_and_counter_gives_a_number_below_one() -> None:
    for seed in (0, 1, 2**32, 2**63 - 1):
        assert all(0 <= uniform(seed, counter) < 1 for counter in (0, 1, 2**40))


def test_numbers_are_uniform_and_those_of_neighbouring_seeds_unrelated() -> None:
    rows = torch.tensor([[uniform(seed, counter) for counter in range(100_000)] for seed in (0, 1, 2)], dtype=torch.float64)
    counts = torch.histc(rows[0].float(), 100, 0, 1)
    assert float(((counts - 1000) ** 2 / 1000).sum()) < 149  # chi square, 99 degrees of freedom: 0.1 %
    related = torch.corrcoef(torch.cat([rows, rows[:1].roll(1, 1)]))
    assert float((related - torch.eye(4)).abs().max()) < 0.015
