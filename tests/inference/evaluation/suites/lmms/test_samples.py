"""Logs of lmms-eval as items: which fields are scores, which log is the newest, and comparisons of two runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference.evaluation.comparing import Margins, compare_results
from inference.evaluation.results import is_higher_better, load_results
from inference.evaluation.suites.lmms import SUITE
from inference.evaluation.suites.lmms.samples import score_of
from model.errors import InputError


def write(folder: Path, task: str, rows: list[dict[str, Any]], date: str = "20260101_120000") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    named = [{"doc_id": place, "target": "A", "filtered_resps": ["A"], "input": "Q", **row} for place, row in enumerate(rows)]
    (folder / f"{date}_samples_{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in named))


@pytest.mark.parametrize(
    ("content", "score"),
    [
        (1, 1.0),
        (False, 0.0),
        (0.25, 0.25),
        ([0.5], 0.5),
        ({"score": 1, "pred": "B"}, 1.0),
        ({"pred_answer": "b ", "answer": "B"}, 1.0),
        ({"pred": "C", "gt": "B"}, 0.0),
        ({"question_id": "3"}, None),
        (["a", "b"], None),
        ("text", None),
        (float("nan"), None),
    ],
)
def test_scores_of_fields(content: Any, score: float | None) -> None:
    assert score_of(content) == score


def test_the_newest_log_of_each_task_is_read(tmp_path: Path) -> None:
    """pope: 1, 0 and 1 are 2 / 3; videomme: of two questions about one video one is right; the mean of both tasks is 7 / 12."""
    write(tmp_path / "model", "pope", [{"exact": 0.0}], date="20250101_120000")
    write(tmp_path / "model", "pope", [{"exact": 1.0}, {"exact": 0.0}, {"exact": 1.0}])
    rows = [{"perception": {"video_id": "v1", "pred_answer": said, "answer": "A"}, "other": "text"} for said in "AB"]
    write(tmp_path / "model", "videomme", rows)
    found = load_results("ours", tmp_path)
    assert SUITE.aggregate(found.items) == pytest.approx(
        {"pope.exact": 2 / 3, "videomme.perception": 0.5, "mean_of_tasks": 7 / 12}
    )  # fmt: skip
    assert {item.cluster for item in found.items} == {"pope/0", "pope/1", "pope/2", "videomme/v1"}
    assert found.notes == [
        "ours: videomme: other of 20260101_120000_samples_videomme.jsonl hold no score of single documents and are left out."
    ]
    assert not is_higher_better(SUITE, "task.wer") and is_higher_better(SUITE, "pope.exact")


def test_two_runs_are_compared_document_by_document(tmp_path: Path) -> None:
    write(tmp_path / "a", "pope", [{"exact": 1.0}] * 40)
    write(tmp_path / "b", "pope", [{"exact": 1.0}] * 39 + [{"exact": 0.0}])
    a, b = (load_results(name, tmp_path / name) for name in "ab")
    found = compare_results(a, b, keeps=["offline"])
    assert found.suites["lmms"].metrics["pope.exact"].difference == pytest.approx(-1 / 40)
    assert not found.kept and compare_results(a, a, keeps=["offline"]).kept


def test_other_documents_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a", "pope", [{"exact": 1.0}])
    write(tmp_path / "b", "pope", [{"exact": 1.0, "target": "B"}])
    with pytest.raises(InputError, match="1 of 1 common scenarios differ"):
        compare_results(load_results("a", tmp_path / "a"), load_results("b", tmp_path / "b"))
    (tmp_path / "a" / "20270101_samples_pope.jsonl").write_text("{}\n")
    with pytest.raises(InputError, match="line 1 is no sample"):
        load_results("a", tmp_path / "a")


def totals(folder: Path, values: dict[str, float], date: str = "20260101_120000") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{date}_results.json").write_text(json.dumps({"results": {"pope": {"alias": "pope", **values}}}))
    return folder


def test_totals_alone_are_compared_as_if_independent(tmp_path: Path) -> None:
    """0.80 and 0.83 with standard errors 0.03 and 0.04: 0.05 together, so 0.03 +- 1.95996 * 0.05, p = 2 Phi(-0.6) = 0.54851;
    the loss is at most -0.03 + 1.64485 * 0.05 = 0.05224."""
    totals(tmp_path / "a", {"acc,none": 0.1}, date="20250101_120000")
    totals(
        tmp_path / "a",
        {
            "acc,none": 0.80,
            "acc_stderr,none": 0.03,
            "acc_stderr_clt,none": 0.03,
            "mae,flexible": 2.0,
            "mae_stderr,flexible": "N/A",
        },
    )
    totals(tmp_path / "b", {"acc,none": 0.83, "acc_stderr,none": 0.04, "mae,flexible": 3.0})
    a, b = (load_results(name, tmp_path / name) for name in "ab")
    assert a.totals == {"pope.acc": (0.80, 0.03), "pope.mae.flexible": (2.0, None)} and "logged no samples" in a.notes[0]
    found = compare_results(a, b, keeps=["offline"])
    one = found.suites["lmms"].metrics["pope.acc"]
    assert (one.low, one.high, one.p) == pytest.approx((0.03 - 0.097998, 0.03 + 0.097998, 0.54851), abs=1e-5)
    kept = found.keeps["lmms/pope.acc"]
    assert kept.verdict == "not shown" and kept.at_most == pytest.approx(0.05224, abs=1e-5)
    assert found.keeps["lmms/pope.mae.flexible"].verdict == "not shown" and "independent" in found.notes[0]
    wide = compare_results(a, b, keeps=["pope.acc"], margins=Margins(default=0.06))
    assert wide.kept


def test_a_damaged_results_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "20260101_results.json").write_text("{}")
    with pytest.raises(InputError, match="is no results file of lmms-eval"):
        load_results("a", tmp_path)
