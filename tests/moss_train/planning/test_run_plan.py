"""`moss plan` on the command line, and predicted times beside measured ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.text.transformer_config import make_transformer_config
from moss_train.cli.main import main
from moss_train.cli.plan import complete
from moss_train.config.compose import compose
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.sizes import check_sizes
from moss_train.planning.expected import ExpectedPack, expected_pack
from moss_train.planning.flops import PEAK, Work
from moss_train.planning.hardware import Cluster
from moss_train.planning.run_plan import check_layout, plan_run
from moss_train.planning.step_time import step_time
from tests.data_pipeline.helpers import tokenizer, write_mixture
from tests.moss_train.planning.test_data_plan import command
from tests.moss_train.planning.test_memory import CASES, overrides_of

PACK = ExpectedPack(8192, 120.0, 6.0, 6e6, 1e5, 6000.0, "a test's pack")
PT2 = compose(["stage=pt2"])
TINY = compose(["stage=pt2", "model=tiny", "train.global_batch_size=720"])
"""Four layers; the global batch is a multiple of whatever is tried."""
ALONE = [case for case in CASES if len(case["ranks"]) == 1 and sum(case["ranks"][0]["seconds"].values()) > 0.25]


def work_of(case: dict[str, Any]) -> Work:
    samples = [sample for pack in case["samples"] for sample in pack]
    rows, frames = sum(n for n, _ in samples), sum(f for _, f in samples)
    pairs, seen = sum(n * (n + 1) // 2 for n, _ in samples), sum(n * f // 2 for n, f in samples)
    return Work(rows, frames, pairs, seen, head_rows=rows - frames)


@pytest.mark.parametrize("case", ALONE, ids=[case["name"] for case in ALONE])
def test_steps_of_a_quarter_of_a_second_and_more_take_about_as_long_as_predicted(case: dict[str, Any]) -> None:
    config = compose(overrides_of(case))
    predicted = step_time(config, 1, work_of(case), Cluster.of("H100"), len(case["samples"]))
    assert predicted.total == pytest.approx(sum(case["ranks"][0]["seconds"].values()), rel=0.2)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2]), st.sampled_from(sorted(PEAK)))
def test_times_follow_the_work(tensor: int, pipeline: int, context: int, gpu: str) -> None:
    parallel = ParallelConfig(tensor=tensor, pipeline=pipeline, context=context)
    config = dataclasses.replace(PT2, parallel=parallel)
    ranks, cluster = tensor * pipeline * context, Cluster.of(gpu)
    one, two = (plan_run(config, ranks * n, cluster, PACK) for n in (1, 2))
    assert two.time.encode == pytest.approx(one.time.encode / 2)
    assert two.time.total < one.time.total
    assert one.needed == two.needed and 0 < one.mfu < cluster.rates.decoder
    assert one.time.bubble == pytest.approx(one.time.decode * (pipeline - 1) / one.micro_batches)
    assert (one.time.tensor_sums > 0) == (tensor > 1)
    assert one.gpu_hours == pytest.approx(one.steps * one.time.total * ranks / 3600)


def test_a_stage_without_known_samples_is_planned_with_full_packs() -> None:
    pack = expected_pack(compose(["stage=warm_text", "data.mixture={text: 1.0}"]), None, "")
    assert pack.frames == 0 and pack.rows == pack.real_rows == 512
    assert "warm_text" in pack.source


def test_the_report_tells_what_fits_and_what_it_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "stage=pt1", "--ranks", "8", "--price", "2", "train.steps=1000"]) == 0
    told = capsys.readouterr().out
    for words in ("10,670.2", "vision tower", "1,000 steps", "USD", "frames/s", "fits", "padding"):
        assert words in told


def test_what_does_not_fit_ends_with_2_the_reason_and_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--ranks", "8", "stage=pt2", "--gpu", "H100"]) == 2
    told = capsys.readouterr().err
    assert "does not fit" in told and "activations" in told and "the cheapest that fits is parallel." in told
    assert main(["plan", "stage=pt2", "model=90b", "--ranks", "8"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("on 32 H200")


def test_json_has_the_same_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "report", "stage=pt1", "parallel=pp2", "--ranks", "4", "--json", "--samples", "1000000"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["replicas"] == 2 and len(plan["memory"]) == 2 and plan["fits"]
    assert plan["seconds"]["total"] == pytest.approx(sum(s for part, s in plan["seconds"].items() if part != "total"))
    for stage in plan["memory"]:
        assert stage["peak"] == max(sum(kinds.values()) for kinds in stage["phases"].values())
    assert plan["steps"] * plan["pack"]["samples"] * 64 == pytest.approx(1e6, rel=0.01)


def test_your_own_shards_give_the_average_pack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mixture(tmp_path, count=6)
    tokenizer().save(tmp_path / "tokenizer.json")
    words = [word for word in command(tmp_path, "--json", "--data")[2:] if word not in ("--steps", "2", "--ranks")]
    assert main(["plan", *words, "--ranks", "2"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["pack"]["source"] == "12 samples of 2 datasets" and 0 < plan["pack"]["frames"] <= 256
    assert plan["loader"]["frames"] == pytest.approx(plan["pack"]["frames"] * 2 / plan["seconds"]["total"] / 2, rel=0.3)


def test_layouts_are_printed_with_reasons_for_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "layouts", "--ranks", "8..16", "stage=pt2", "--gpu", "H100", "--price", "2.5"]) == 0
    told = capsys.readouterr().out
    assert "runner-up" in told and "refused:" in told and "by memory" in told
    assert main(["plan", "layouts", "stage=pt2", "model=90b", "--ranks", "2", "--gpu", "A100"]) == 2
    assert "no layout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["stage=pt2", "parallel.tensor=3", "--ranks", "3"], "parallel.tensor is 3"),
        (["stage=pt2", "--ranks", "0"], "--ranks is 0"),
        (["stage=pt2", "--ranks", "3"], "train.global_batch_size"),
        (["stage=pt2", "--gpu", "B1"], "--gpu is 'B1'"),
        (["stage=pt2", "--price", "nan"], "--price"),
        (["stage=pt2", "--steps", "3", "--samples", "4"], "--steps and --samples"),
        (["stage=pt2", "precision=fp8", "--gpu", "A100"], "precision.fp8"),
        (["stage=pt2", "engine=deepspeed"], "engine is deepspeed"),
        (
            ["stage=pt2", "model=tiny", "optimizer.modules=[{name: mine, pattern: nowhere, weight_decay: 1}]"],
            "entry 'mine' fits no parameter",
        ),
        (["stage=pt2", "precision=fp8", "stage.sequence_length=8190"], "no multiple of the 16 that precision.fp8"),
        (["stage=pt2", "parallel=tp4", "stage.sequence_length=8190", "--ranks", "4"], "parallel.sequence_parallel takes"),
        (["stage=pt2", "parallel.pipeline=64", "--ranks", "64"], "num_hidden_layers"),
        (["measure", "stage=pt1", "--pack", "8"], "--pack"),
    ],
)
def test_the_impossible_is_refused_in_a_sentence(words: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    assert named in capsys.readouterr().err


def test_overrides_are_taken_wherever_they_stand() -> None:
    assert complete(["--ranks", "8", "stage=pt1"]) == ["report", "stage=pt1", "--ranks", "8"]
    assert complete(["layouts", "--ranks", "8", "16", "stage=pt1"]) == ["layouts", "stage=pt1", "--ranks", "8", "16"]
    assert complete(["--help"]) == ["--help"] and complete([]) == ["report"]


def test_refusals_are_not_of_plans_alone() -> None:
    config = compose(["stage=pt2", "parallel.pipeline=4", "parallel.virtual_pipeline=2", "train.global_batch_size=2"])
    with pytest.raises(InputError, match=r"as parallel\.virtual_pipeline needs"):
        plan_run(config, 4, Cluster.of("H100"), PACK)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([1, 2, 3, 4, 16]), st.sampled_from([1, 2, 3, 5]), st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]),
    st.booleans(), st.sampled_from([None, [1, 3], [2, 2], [4]]), st.sampled_from([4, 8, 12]),
)  # fmt: skip
def test_a_plan_refuses_the_layouts_that_training_refuses(
    tensor: int, pipeline: int, virtual: int, context: int, sequence: bool, layers: list[int] | None, ranks: int
) -> None:
    parallel = ParallelConfig(
        tensor=tensor, pipeline=pipeline, virtual_pipeline=virtual, context=context, sequence_parallel=sequence,
        stage_layers=layers,
    )  # fmt: skip
    config = dataclasses.replace(TINY, parallel=parallel)

    def trains() -> None:
        check_sizes(parallel, ranks)
        make_transformer_config(
            VideoMllamaConfig.from_dict(config.model), tensor=tensor, pipeline=pipeline, virtual_pipeline=virtual,
            context=context, sequence_parallel=sequence, stage_layers=layers,
        )  # fmt: skip

    def plans() -> None:
        check_layout(config, ranks)

    def refused(call: Callable[[], None]) -> bool:
        try:
            call()
        except InputError:
            return True
        return False

    assert refused(plans) == refused(trains)
