"""Ratios, summary and tables come from the numbers of a file."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from moss_train.bench.reference.cases import Options, make_cases
from moss_train.bench.reference.ratios import computed_ranks_ratio, mixture_ratio, ratio_of, summary, tables
from moss_train.bench.subject import Cut
from moss_train.config.compose import compose

GIB = 2**30


def sample(side: str, precision: str, frames: int, rows: int, per_second: float, peak: float) -> dict[str, Any]:
    return {
        "name": f"{side} {precision}", "side": side, "precision": precision, "optimizer": "none", "kind": "sample", "stage": "",
        "frame_count": frames, "rows": rows, "frames_per_second": per_second, "seconds": frames / per_second, "tflops": 1.0,
        "peak": peak * GIB,
    }  # fmt: skip


def mixture(side: str, precision: str, stage: str, seconds: float, packs: int) -> dict[str, Any]:
    return {
        "name": f"{side} {stage}", "side": side, "precision": precision, "optimizer": "none", "kind": "mixture", "stage": stage,
        "seconds": seconds, "packs": packs, "sample_count": 4, "frames": 100, "tokens": 2000,
        "seconds_by_kind": {"video": [seconds]}, "all_seconds": [seconds / 4] * 4, "too_large": [],
    }  # fmt: skip


def content(*cases: dict[str, Any], model: str = "11b") -> dict[str, Any]:
    return {
        "hardware": {"device": "NVIDIA H100 80GB HBM3"}, "cases": list(cases), "left_out": [],
        "options": {"model": model, "cut": asdict(Cut(10)), "mixture": ["pt1", "pt2"]},
    }  # fmt: skip


def test_the_ratio_is_to_the_faster_of_the_run_here_and_the_figures() -> None:
    case = sample("ours", "bf16", 64, 1088, 58.05, 20.0)
    slower = content(sample("reference", "bf16", 64, 1088, 30.0, 40.0), case)
    ratio = ratio_of(slower, case)
    assert (ratio.here, ratio.published, ratio.memory) == (pytest.approx(1.935), pytest.approx(1.5), pytest.approx(0.5))
    assert ratio.faster == pytest.approx(1.5)
    faster = content(sample("reference", "bf16", 64, 1088, 45.0, 40.0), case)
    assert ratio_of(faster, case).faster == pytest.approx(58.05 / 45.0)


def test_without_a_run_here_the_figures_alone_count() -> None:
    case = sample("ours", "fp8", 256, 4096, 50.0, 43.0)
    ratio = ratio_of(content({**sample("reference", "bf16", 256, 4096, 1.0, 1.0), "failed": "out of memory"}, case), case)
    assert ratio.here is None and ratio.faster == pytest.approx(50.0 / 38.3) and ratio.memory == pytest.approx(0.5)


@pytest.mark.parametrize(("model", "rows"), [("tiny", 1088), ("11b", 576)])
def test_figures_of_another_model_or_a_longer_sample_do_not_count(model: str, rows: int) -> None:
    case = sample("ours", "bf16", 64, rows, 50.0, 20.0)
    found = ratio_of(content(case, model=model), case)
    assert found.published is None and found.faster is None and found.memory is None


def test_the_mixture_s_ratio_is_of_all_its_samples() -> None:
    cases = [
        mixture("reference", "bf16", "pt1", 3.0, 4), mixture("reference", "bf16", "pt2", 9.0, 4),
        mixture("ours", "bf16", "pt1", 1.0, 1), mixture("ours", "bf16", "pt2", 3.0, 2), mixture("ours", "fp8", "pt1", 0.5, 1),
    ]  # fmt: skip
    made = content(*cases)
    assert mixture_ratio(made, "bf16") == pytest.approx(3.0) and mixture_ratio(made, "fp8") is None
    assert mixture_ratio(made, "fp8", ["pt1"]) == pytest.approx(6.0)
    assert summary(made)["ratio_mixture"] == pytest.approx(3.0) and summary(made)["ratio_mixture_fp8"] is None


def test_summary_and_tables_say_which_card() -> None:
    made = content(
        sample("reference", "bf16", 64, 1088, 40.0, 32.0), sample("ours", "bf16", 64, 1088, 60.0, 16.0),
        sample("ours", "fp8", 64, 1088, 80.0, 16.0),
    )  # fmt: skip
    values = summary(made)
    assert values["ratio_64_bf16"] == pytest.approx(1.5) and values["ratio_64_fp8"] == pytest.approx(2.0)
    assert values["ratio_256_bf16"] is None and values["memory_64_bf16"] == pytest.approx(0.5)
    (table,) = tables(made)
    assert [row[1] for row in table.rows] == ["NVIDIA H200", *["NVIDIA H100 80GB HBM3"] * 3]
    assert table.rows[2][6:9] == ("1.50", "1.55", "1.50")


def test_a_rank_for_each_sample_waits_for_the_slowest() -> None:
    slow = {**mixture("reference", "bf16", "pt1", 3.0, 4), "all_seconds": [0.5, 0.5, 0.5, 1.5]}
    made = content(slow, mixture("ours", "bf16", "pt1", 1.0, 1))
    assert computed_ranks_ratio(made, "bf16", ["pt1"]) == pytest.approx(1.5 / 0.25)
    assert summary(made)["ratio_mixture_ranks_computed_bf16"] is None, "pt2 is missing"


def test_all_models_get_the_same_cases_and_the_reference_s_way_differs_in_its_config_alone() -> None:
    models = make_cases(Options(mixture=("pt1",), deepspeed=True, overrides=("vision.keep_activations_gib=5",)))
    names = [model.name for model, _ in models]
    assert names == [
        "reference bf16", "ours bf16", "ours fp8",
        "reference bf16, DeepSpeed ZeRO-2", "ours bf16, AdamW", "ours bf16, compact AdamW",
    ]  # fmt: skip
    assert models[0][1] == models[1][1] == models[2][1] and len(models[3][1]) == 1 and models[3][1][0].frames == 64
    configs = [compose(list(model.overrides)) for model, _ in models]
    assert all(config.model == configs[0].model and config.stage == configs[0].stage for config in configs)
    assert [config.vision.keep_activations_gib for config in configs[:3]] == [-1, 5, 5]
    assert [config.precision.fp8 for config in configs[:3]] == ["none", "none", "delayed"] and configs[2].precision.fp8_vision
    assert configs[3].engine == "deepspeed" and configs[3].deepspeed.zero_stage == 2
    assert configs[0].model["text"]["cross_attention_layers"] == [3, 8] and configs[0].stage.trainable == "all"
