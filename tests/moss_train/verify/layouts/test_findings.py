"""Differences, verdicts and the table, on outcomes made by hand."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
import torch

from model.errors import InputError
from moss_train.config.schema import ParallelConfig
from moss_train.verify.layouts.compare import compare, distance
from moss_train.verify.layouts.findings import BF16_REFERENCE, Difference, Findings, TrialResult
from moss_train.verify.layouts.report import as_markdown, as_text, bf16_sentence, rows_of
from moss_train.verify.layouts.trial import Outcome, own_batches


def outcome() -> Outcome:
    """Two updates on two ranks."""
    return Outcome(
        loss=[4.0, 3.0],
        norm=[2.0, 1.0],
        planned=[[2, 1], [1, 2]],
        again=[0, 0],
        encoded=[[[7, 8], [9]], [[1], [2, 3]]],
        statistics={"loss": 3.0, "targets": 10, "class_loss": {"text": 2.0}, "dataset_loss": {}, "accuracy": None},
        gradients={"language_model.model.a": torch.tensor([3.0, 4.0]), "b": torch.zeros(2)},
        weights={"a": torch.tensor([3.0, 4.0])},
    )


def judged(got: Outcome, optimizer: str = "sgd", dtype: str = "fp32") -> TrialResult:
    return TrialResult("tp2", 2, "all", optimizer, dtype, compare(got, outcome())).judge()


def test_equal_outcomes_pass() -> None:
    result = judged(outcome())
    assert result.reasons == [] and result.findings is not None
    assert result.findings.loss.value == result.findings.weights.value == 0
    assert result.findings.trained == 1


CHANGES: list[tuple[str, Any, str]] = [
    ("loss", [4.0, 3.0 * (1 + 2e-6)], "loss 2.0e-06 > 1e-06 (update 2)"),
    ("norm", [2.0 * (1 + 2e-6), 1.0], "norm 2.0e-06 > 1e-06 (update 1)"),
    ("norm", [float("nan"), 1.0], "norm inf > 1e-06 (update 1)"),
    ("statistics", {"loss": 3.0, "targets": 10, "class_loss": {"text": 2.001}}, "log 5.0e-04 > 1e-05 (class_loss.text)"),
    ("statistics", {"loss": 3.0, "targets": 10, "class_loss": {}}, "log inf > 1e-05 (class_loss.text)"),
    ("planned", [[2, 1], [1, 1]], "frames of the first pass by rank are [[2, 1], [1, 1]], together not [3, 3]"),
    ("encoded", [[[7, 8], [8]], [[1], [2, 3]]], "[2, 3] different frames were encoded, not [3, 3]"),
    ("weights", {"a": torch.tensor([3.0, 4.0 + 1.001e-5])}, "sgd 2.0e-06 > 1e-06 (a)"),
]


@pytest.mark.parametrize(("field", "value", "reason"), CHANGES)
def test_what_differs_is_named(field: str, value: Any, reason: str) -> None:
    assert judged(replace(outcome(), **{field: value})).reasons == [reason]


def test_each_gradient_counts_by_itself() -> None:
    got = copy.deepcopy(outcome())
    assert got.gradients is not None
    got.gradients["b"][0] = 2e-5
    assert judged(got).reasons == ["gradients 2.0e-05 > 1e-05 (b)"], "a gradient that is zero on one rank must stay zero"
    got.gradients["b"][0] = float("nan")
    assert judged(got).reasons == ["gradients inf > 1e-05 (b)"]
    assert distance({"a": torch.tensor([1.0])}, {"a": torch.tensor([2.0])}) == (0.5, "a")


def test_what_was_not_compared_does_not_pass() -> None:
    assert judged(replace(outcome(), gradients=None)).reasons == ["no gradients were compared"]
    assert judged(replace(outcome(), gradients=None), "adamw").reasons == []
    more = {"a": torch.tensor([3.0, 4.0]), "b": torch.zeros(1)}
    assert judged(replace(outcome(), weights=more)).reasons == ["sgd inf > 1e-06 (b)"]
    assert distance({"a": torch.ones(1)}, more) == (float("inf"), "b")
    statistics = {"loss": 3.0, "targets": 10, "class_loss": {"text": 2.0, "silence": 1.0}}
    assert judged(replace(outcome(), statistics=statistics)).reasons == ["log inf > 1e-05 (class_loss.silence)"]


def test_adamw_and_bf16_have_bounds_of_their_own() -> None:
    got = replace(outcome(), weights={"a": torch.tensor([3.0, 4.0 + 2e-5])}, loss=[4.04, 3.0])
    assert judged(got, "adamw").reasons == ["loss 1.0e-02 > 1e-06 (update 1)"]
    assert judged(got, "sgd", "bf16").reasons == []
    assert judged(replace(got, loss=[4.4, 3.0]), "sgd", "bf16").reasons == ["loss 1.0e-01 > 0.02 (update 1)"]


def test_the_table_shows_the_worst_of_all_presets() -> None:
    got = copy.deepcopy(outcome())
    assert got.gradients is not None
    got.gradients["language_model.model.a"][0] += 1e-3
    results = [
        TrialResult(BF16_REFERENCE, 1, "all", "sgd", "bf16", compare(replace(outcome(), loss=[4.1, 3.0]), outcome())).judge(),
        judged(outcome()),
        judged(got),
        judged(outcome(), "adamw"),
        judged(replace(outcome(), loss=[4.04, 3.0]), "sgd", "bf16"),
        TrialResult("tp8", 8, "all", "sgd", "fp32", error="parallel.tensor is 8").judge(),
        TrialResult("tp8", 8, "all", "adamw", "fp32", error="parallel.tensor is 8").judge(),
    ]
    rows = rows_of(results)
    assert [row.layout for row in rows] == ["tp2", "tp8"]
    assert rows[0].cells()[3] == "2.0e-04" and rows[0].cells()[-1] == "a" and rows[0].cells()[7] == "1.0e-02"
    assert rows[0].reasons == ["all sgd fp32: gradients 2.0e-04 > 1e-05 (a)"] and rows[1].reasons == ["parallel.tensor is 8"]
    assert "2.5e-02 in the loss" in bf16_sentence(results) and bf16_sentence(results[1:]) == ""
    text = as_text(rows).splitlines()
    assert text[1].endswith("FAILS") and text[-1].split()[:4] == ["tolerance", "1e-06", "1e-05", "1e-06"]
    assert as_markdown(rows).splitlines()[2].startswith("| tp2 | 2 | 0 | 2.0e-04 |")


def test_what_there_was_no_time_for_neither_passes_nor_fails() -> None:
    late = TrialResult("cp2", 2, "all", "sgd", "fp32", skipped=True, error="no time was left").judge()
    rows = rows_of([judged(outcome()), late])
    assert late.reasons == [] and [row.skipped for row in rows] == [False, True]
    assert as_text(rows).splitlines()[2].endswith("no time") and rows[1].cells()[2:] == ["-"] * 8


def test_results_survive_json() -> None:
    result = judged(outcome())
    content = json.loads(json.dumps(result.as_json()))
    assert Findings.of(content["findings"]) == result.findings
    assert isinstance(Findings.of(content["findings"]).loss, Difference)


@pytest.mark.parametrize(
    ("sizes", "replicas", "named"),
    [
        (ParallelConfig(), 3, "4 micro-batches do not divide among 3 replicas"),
        (ParallelConfig(), 8, "do not divide among 8"),
        (ParallelConfig(pipeline=3, virtual_pipeline=2), 1, "4 micro-batches, no multiple of its 3 stages"),
        (ParallelConfig(pipeline=2, virtual_pipeline=2), 4, "1 micro-batches, no multiple of its 2 stages"),
    ],
)
def test_a_global_batch_that_does_not_divide_is_refused(sizes: ParallelConfig, replicas: int, named: str) -> None:
    with pytest.raises(InputError, match=named):
        own_batches(sizes, replicas, 0)


def test_every_micro_batch_goes_to_one_replica() -> None:
    assert [own_batches(ParallelConfig(), 2, replica) for replica in range(2)] == [slice(0, 2), slice(2, 4)]
