"""Rates are drawn as configured, and wrong settings are told in a sentence."""

from __future__ import annotations

import random
import statistics

import pytest

from data_pipeline.realtime.emission import RateConfig, SlotBudget, draw_rate
from model.errors import InputError


def drawn(config: RateConfig, count: int = 2000) -> list[float]:
    rng = random.Random(0)
    return [draw_rate(rng, config) for _ in range(count)]


def test_lists_follow_their_weights() -> None:
    rates = drawn(RateConfig(rates=(5.0, 20.0), weights=(1.0, 3.0)))
    assert set(rates) == {5.0, 20.0} and rates.count(20.0) / 2000 == pytest.approx(0.75, abs=0.04)
    assert drawn(RateConfig(rates=(5.0, 20.0))).count(5.0) / 2000 == pytest.approx(0.5, abs=0.04)


def test_ranges_are_kept() -> None:
    uniform = drawn(RateConfig(mode="uniform", low=10.0, high=30.0))
    assert min(uniform) >= 10 and max(uniform) <= 30 and statistics.mean(uniform) == pytest.approx(20, abs=0.5)
    skewed = drawn(RateConfig(mode="log_normal", low=5.0, high=80.0))
    assert min(skewed) >= 5 and max(skewed) <= 80 and statistics.median(skewed) == pytest.approx(20, abs=2)
    speech = drawn(RateConfig(mode="speech", low_words=2.5, high_words=4.0, tokens_per_word=1.5))
    assert min(speech) >= 3.75 and max(speech) <= 6.0 and statistics.mean(speech) == pytest.approx(3.25 * 1.5, abs=0.1)


def test_the_same_seed_draws_the_same_rates() -> None:
    config = RateConfig(mode="log_normal")
    assert drawn(config, 5) == drawn(config, 5)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"mode": "fast"}, "use one of"),
        ({"rates": ()}, "at least one"),
        ({"rates": (0.0,)}, "above 0"),
        ({"rates": (1.0, 2.0), "weights": (1.0,)}, "one for each"),
        ({"rates": (1.0,), "weights": (0.0,)}, "not all of them 0"),
        ({"mode": "uniform", "low": 5.0, "high": 1.0}, "must rise"),
        ({"mode": "log_normal", "low": 0.0}, "must rise"),
        ({"mode": "speech", "tokens_per_word": 0.0}, "tokens_per_word"),
    ],
)
def test_wrong_settings_are_told(values: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        RateConfig(**values)  # type: ignore[arg-type]


def test_fractions_are_carried_while_speech_goes_on_and_lapse_in_silence() -> None:
    budget = SlotBudget(2.5, 1.0)
    rooms = []
    for _ in range(4):
        rooms.append(budget.open_slot())
        budget.close_slot(rooms[-1], True)
    assert rooms == [3, 2, 3, 2]
    budget.close_slot(0, False)
    assert budget.open_slot() == 3 == budget.most


def test_speech_begins_at_once_below_a_token_a_slot_and_keeps_the_rate() -> None:
    budget = SlotBudget(1.0, 4.0)
    rooms = []
    for _ in range(9):
        rooms.append(budget.open_slot())
        budget.close_slot(min(1, rooms[-1]), True)
    assert rooms == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    with pytest.raises(InputError, match="above 0"):
        SlotBudget(1.0, 0.0)
