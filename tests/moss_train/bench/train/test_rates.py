"""Seconds and operations of a step."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.config import VideoMllamaConfig
from moss_train.bench.packs import stage_pack
from moss_train.bench.subject import Cut, overrides_of
from moss_train.bench.train.machine import means_of
from moss_train.bench.train.rates import (
    PHASES,
    StepFlops,
    StepRecord,
    attention_flops,
    mean_seconds,
    middle,
    parts_of,
    rates,
    spread,
)
from moss_train.config.compose import compose
from moss_train.feed.work import batch_work
from moss_train.planning.flops import Work, forward_flops

RUN = compose(overrides_of("pt2", cut=Cut(text_layers=10)))
MODEL = VideoMllamaConfig.from_dict(RUN.model)
PEAKS = {"peak": 989e12, "product": 790e12, "sustained": None}


def record(step: float = 1.0, **values: object) -> StepRecord:
    work = batch_work(stage_pack(MODEL, "pt2", 4096, 64, pixels=False))
    made = StepRecord(
        parts_of({"encode": 0.4 * step, "decode": 0.3 * step, "return": 0.2 * step}, 0.01 * step, step), {}, work, 4096, 1
    )
    return replace(made, **values)  # type: ignore[arg-type]


@given(st.dictionaries(st.sampled_from(PHASES[:5]), st.floats(0, 10)), st.floats(0, 1), st.floats(0, 100))
def test_parts_add_up_to_the_step(phases: dict[str, float], wait: float, step: float) -> None:
    parts = parts_of(phases, wait, step)
    assert set(parts) == {*PHASES, "step"}
    assert sum(parts[name] for name in PHASES) == pytest.approx(step, abs=1e-9)
    assert parts["data_wait"] == wait and all(parts[name] == seconds for name, seconds in phases.items())


def test_rates_of_a_step_of_11b_widths() -> None:
    """The cut of the comparison with the reference: 10 layers, cross at 3 and 8, 64 frames, 4,096 rows."""
    flops = StepFlops.of(MODEL, RUN, record())
    forward = forward_flops(MODEL, record().work)
    assert flops.model.total == pytest.approx(3 * forward.total)  # everything trains
    assert flops.vision_forward == pytest.approx(64 * 3.07e12, rel=0.01)
    found = rates(record().seconds, flops, PEAKS)
    rate = found["tflops"]
    assert rate["model"] == pytest.approx(flops.model.total / 1e12)
    assert sum(rate["by_part"].values()) == pytest.approx(rate["model"])
    assert rate["decoder"] == pytest.approx(flops.model.decoder / 0.3 / 1e12)
    assert rate["vision_forward"] == pytest.approx(flops.vision_forward / 0.4 / 1e12)
    assert rate["vision_backward"] == pytest.approx(2 * flops.vision_forward / 0.2 / 1e12)
    assert found["mfu"]["peak"] == pytest.approx(rate["model"] / 989) and found["mfu"]["sustained"] is None
    assert found["flops"]["model"]["total"] == pytest.approx(sum(asdict(flops.model).values()))


def test_what_is_computed_again_is_the_hardwares() -> None:
    plain, again = (StepFlops.of(MODEL, RUN, record(again=n, kept=64 - n)) for n in (0, 20))
    assert plain.model == again.model and plain.hardware == plain.model
    assert again.hardware.vision - plain.hardware.vision == pytest.approx(20 / 64 * plain.vision_forward)
    less = StepFlops.of(MODEL, RUN, record(kept=64, keep_mode="attention"))
    assert plain.hardware.vision < less.hardware.vision < plain.hardware.vision + plain.vision_forward
    full = compose(overrides_of("pt2", cut=Cut(text_layers=10), recompute="full"))
    recomputed = StepFlops.of(MODEL, full, record())
    assert recomputed.model == plain.model and recomputed.hardware.text == pytest.approx(4 / 3 * plain.hardware.text)


def test_a_phase_without_work_has_no_rate() -> None:
    text = record(work=Work(rows=4096, self_pairs=10**6))
    found = rates(parts_of({"decode": 1.0}, 0.0, 1.0), StepFlops.of(MODEL, RUN, text), PEAKS)["tflops"]
    assert found["vision_forward"] is None and found["vision_backward"] is None and found["decoder"] > 0


def test_attention_is_what_grows_with_pairs() -> None:
    short, long = (record(work=replace(record().work, self_pairs=n)) for n in (1000, 2000))
    added = attention_flops(MODEL, RUN, long) - attention_flops(MODEL, RUN, short)
    assert added == pytest.approx(8 * 3 * 4 * 4096 * 1000)  # self layers, passes, operations of a pair, width, pairs
    kept, again = (attention_flops(MODEL, RUN, record(kept=64 - n, again=n)) for n in (0, 64))
    one = 40 * 4 * 1608**2 * 1280  # layers, operations of a pair, pairs, width: of a frame
    assert again - kept == pytest.approx(64 * one)


def test_the_median_step_speaks_for_equal_ones() -> None:
    records = [record(step) for step in (1.4, 1.0, 1.1, 1.3)]
    assert middle(records) is records[2]
    assert spread(records) == {"least": 1.0, "median": 1.1, "most": 1.4, "mean": pytest.approx(1.2)}
    means = mean_seconds(records)
    assert sum(means[name] for name in PHASES) == pytest.approx(means["step"]) and means["step"] == pytest.approx(1.2)


def test_lines_of_the_driver_become_means() -> None:
    assert means_of(["345, 120.5, 40", "1980, 690.0, 60", "[N/A], x, y", "1960, 710.0, 62", ""]) == {
        "mhz": 1970.0, "watts": 700.0, "celsius": 61.0,
    }  # fmt: skip
    assert means_of(["1980, 500.0, 50"]) == {"mhz": 1980.0, "watts": 500.0, "celsius": 50.0}
    assert means_of(["nvidia-smi has failed"]) is None
