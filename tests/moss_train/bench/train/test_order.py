"""Which cases of `moss bench train` come first, what they are expected to take, and what is told before anything is built."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from moss_train.bench.subject import Cut
from moss_train.bench.train.cases import Options, make_cases
from moss_train.bench.train.order import LEAST_STEPS, case_steps, expected, in_order
from moss_train.bench.train.run import TIME_UP, Bench
from moss_train.planning.flops import PEAK
from moss_train.planning.rates import read_table

WIDE = Options(stages=("pt2", "pt1"), frames=(0, 8, 64, 256), rows=(1024, 4096, 8192), cut=Cut(10), keep_gib=66.0)


def test_cases_that_share_a_model_stay_together_and_the_step_of_the_summary_is_first() -> None:
    cases, _ = make_cases(WIDE)
    ordered = in_order(cases)
    assert sorted(case.name for case in ordered) == sorted(case.name for case in cases)
    groups = [case.group for case in ordered]
    assert sum(a != b for a, b in itertools.pairwise(groups)) == len(set(groups)) - 1 == 3
    assert [(c.stage, c.precision) for c in ordered if (c.rows, c.frames) == (4096, 64)] == [
        ("pt2", "bf16"), ("pt1", "bf16"), ("pt2", "fp8"), ("pt1", "fp8"),
    ]  # fmt: skip
    assert (ordered[0].rows, ordered[0].frames) == (4096, 64)
    assert (ordered[1].rows, ordered[1].frames) == (8192, 64)


def test_what_is_expected_of_the_page_s_step_is_near_what_it_took() -> None:
    cases, _ = make_cases(Options(stages=("pt2",), frames=(64,), rows=(4096,), precisions=("bf16",), cut=Cut(10), keep_gib=66.0))
    found = expected(cases[0], 0, PEAK["H200"], read_table()["H200"])
    assert found.step is not None and 1.1 < found.step < 1.8
    assert 85 < found.peak / 2**30 < 105
    assert expected(cases[0], 0, None, None).step is None


@pytest.mark.parametrize(
    ("seconds", "step", "counts"), [(None, 9.0, (3, 8)), (6.0, 1.5, (3, 4)), (6.0, 5.0, (1, LEAST_STEPS)), (6.0, 0.1, (3, 8))]
)
def test_long_steps_are_done_less_often(seconds: float | None, step: float, counts: tuple[int, int]) -> None:
    assert case_steps(Options(case_seconds=seconds), step) == counts


def bench(options: Options, **more: Any) -> dict[str, Any]:
    cases, left_out = make_cases(options)
    made = Bench(options, torch.device("cpu"), lambda results: None, lambda line: None, **more)
    return made.run(cases, left_out)


TINY = Options(
    stages=("pt2",), frames=(4,), rows=(64, 96), precisions=("fp32",), model="tiny", cut=Cut(), steps=3, warmup=2,
)  # fmt: skip


def test_what_the_device_does_not_hold_is_told_and_not_built() -> None:
    found = bench(TINY, card=1 << 20)
    assert found["cases"] == [] and "chip" not in found
    assert all("GiB by the plan, and the device has 0.0" in entry["reason"] for entry in found["left_out"])
    assert len(found["left_out"]) == 2


def test_case_seconds_leave_one_warm_up_and_two_steps_and_without_time_nothing_is_done() -> None:
    found = bench(Options(**{**vars(TINY), "rows": (64,), "steps": 6, "case_seconds": 1e-9}))
    assert found["cases"][0]["steps"] == LEAST_STEPS
    late = bench(Options(**{**vars(TINY), "limit_seconds": 0.0}))
    assert late["cases"] == [] and [entry["reason"] for entry in late["left_out"]] == [TIME_UP] * 2
