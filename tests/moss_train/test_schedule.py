"""Learning-rate schedules against their definitions."""

from __future__ import annotations

import math

import pytest

from model.errors import InputError
from moss_train.schedule import LearningRate


def test_reference_schedule_by_hand() -> None:
    """100 updates, warm-up 10: ln(s + 1) / ln(10) with s one behind, two updates at 0, then a line to 0."""
    rate = LearningRate("reference_log_linear", 2e-5, 0.0, 0.1, 100)
    assert rate(0) == rate(1) == 0.0
    assert rate(2) == pytest.approx(2e-5 * math.log(2) / math.log(10))
    assert rate(10) == pytest.approx(2e-5)
    assert rate(11) == pytest.approx(2e-5)
    assert rate(56) == pytest.approx(2e-5 * 45 / 90)
    assert rate(101) == 0.0


def test_cosine() -> None:
    rate = LearningRate("cosine", 1.0, 0.1, 0.1, 100)
    assert [rate(u) for u in range(3)] == pytest.approx([0.1, 0.2, 0.3])
    assert rate(9) == rate(10) == 1.0
    assert rate(55) == pytest.approx(0.55)
    assert rate(100) == pytest.approx(0.1)
    values = [rate(u) for u in range(10, 101)]
    assert values == sorted(values, reverse=True)


def test_constant_without_warm_up() -> None:
    rate = LearningRate("constant", 3.0, 0.0, 0.0, 10)
    assert {rate(u) for u in range(10)} == {3.0}


def test_refused() -> None:
    with pytest.raises(InputError, match=r"warmup_ratio is 1\.5"):
        LearningRate("cosine", 1.0, 0.0, 1.5, 10)
    with pytest.raises(InputError, match="above the peak"):
        LearningRate("cosine", 1.0, 2.0, 0.1, 10)
