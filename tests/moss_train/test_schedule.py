"""Learning-rate schedules against their definitions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from moss_train.config.schema import DECAY_SHAPES, SCHEDULES, StageConfig
from moss_train.schedule import LearningRate, stage_rates


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


@pytest.mark.parametrize(("shape", "middle"), [("linear", 0.55), ("cosine", 0.55), ("sqrt", 1.0 - 0.9 * math.sqrt(0.5))])
def test_warm_up_stable_decay(shape: str, middle: float) -> None:
    """100 updates, 10 of warm-up, 20 of decay to a tenth; half of the decay is done at its tenth update."""
    rate = LearningRate("wsd", 1.0, 0.1, 0.1, 100, 0.2, shape)
    assert rate(0) == pytest.approx(0.1) and {rate(u) for u in range(9, 80)} == {1.0}
    assert rate(80) < 1.0 and rate(89) == pytest.approx(middle)
    assert rate(99) == 0.1 and rate(150) == 0.1


@given(
    st.sampled_from(SCHEDULES),
    st.sampled_from(DECAY_SHAPES),
    st.integers(1, 400),
    st.floats(1e-9, 1.0),
    st.floats(0.0, 1.0),
    st.floats(0.0, 0.5),
    st.floats(0.0, 0.5),
)
def test_every_schedule(
    schedule: str, shape: str, steps: int, peak: float, low: float, warmup: float, decay: float
) -> None:  # fmt: skip
    """Bounded by the peak, rises and then falls, and never jumps where one part meets the next."""
    minimum = low * peak
    rate = LearningRate(schedule, peak, minimum, warmup, steps, decay, shape)
    values = [rate(u) for u in range(steps + 2)]
    assert all(0.0 <= value <= peak * (1 + 1e-12) for value in values)
    top = values.index(max(values))
    slack = 1e-12 * peak
    assert all(a <= b + slack for a, b in pairwise(values[: top + 1]))
    assert all(a >= b - slack for a, b in pairwise(values[top:]))
    warm = math.ceil(warmup * steps)
    if schedule == "wsd":
        length = min(math.ceil(decay * steps), steps - warm)
        assert length == 0 or values[steps - 1] == minimum
        first = math.sqrt(1 / max(1, length)) if shape == "sqrt" else 2 / max(1, length)  # the steepest of each shape
        assert all(a - b <= (peak - minimum) * first + slack for a, b in pairwise(values[warm:]))
    if schedule != "reference_log_linear":
        assert all(b - a <= peak / max(1, warm) + slack for a, b in pairwise(values))


@given(st.sampled_from(["cosine", "constant", "wsd"]), st.integers(1, 50), st.integers(2, 5))
def test_schedules_stretch(schedule: str, tens: int, factor: int) -> None:
    """A longer run passes the same rates at the same shares of its steps, but for the length of one update."""
    short, long = (LearningRate(schedule, 1.0, 0.1, 0.1, 10 * n, 0.2) for n in (tens, tens * factor))
    for u in range(10 * tens):
        inside = [long(v) for v in range(u * factor, (u + 1) * factor + 1)]
        assert min(inside) - 1.0 / tens <= short(u) <= max(inside) + 1.0 / tens


def test_vision_has_a_peak_of_its_own() -> None:
    stage = StageConfig(name="x", learning_rate=1.0, vision_learning_rate=0.2, min_learning_rate=0.5, warmup_ratio=0.0)
    rates = stage_rates(stage, 10)
    assert (rates["decoder"](0), rates["vision"](0), rates["vision"](9)) == (1.0, 0.2, 0.2)


def test_refused() -> None:
    with pytest.raises(InputError, match=r"warmup_ratio 0\.6 and stage\.decay_ratio 0\.5 are more than 1 together"):
        StageConfig(name="x", schedule="wsd", warmup_ratio=0.6, decay_ratio=0.5)
    with pytest.raises(InputError, match=r"stage\.vision_learning_rate is -1"):
        StageConfig(name="x", vision_learning_rate=-1.0)
    with pytest.raises(InputError, match=r"warmup_ratio is 1\.5"):
        LearningRate("cosine", 1.0, 0.0, 1.5, 10)
    with pytest.raises(InputError, match="above the peak"):
        LearningRate("cosine", 1.0, 2.0, 0.1, 10)
