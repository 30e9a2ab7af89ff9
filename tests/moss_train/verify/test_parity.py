"""What the parts of gpu_parity.sh found, joined: verdicts, parts that did not end, modules that are not those of a GPU run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moss_train.verify.layouts.findings import Difference, Findings, TrialResult
from moss_train.verify.parity import joined, main
from moss_train.verify.ranks.findings import CaseResult

ENGINE = "EngineNormColumnLinear, cross-attention flash, tower fused"
FOUND = Findings(
    loss=Difference(1e-4, "update 1"), norm=Difference(2e-4, "update 2"), weights=Difference(3e-4, "a"), log=Difference(0.0, ""),
    planned=[[1, 1]], towers=[[1, 1]], again=[0], distinct=[2], expected_frames=[2], gradients=Difference(5e-3, "b"),
    all_gradients=4e-3, trained=7,
)  # fmt: skip
TRIAL = TrialResult("tp2", 2, "all", "sgd", "bf16", FOUND, modules="auto", made_of=ENGINE)
CASE = CaseResult("resume", "dp2", 2, "auto", "bf16", ENGINE, figures={"tensors": 9, "loss": 0.0})


def write(out: Path, trial: TrialResult = TRIAL, case: CaseResult = CASE, complete: bool = True, gpus: int = 2) -> None:
    common: dict[str, Any] = {"device": "H", "gpus": gpus, "ranks": 2, "versions": {"torch": "2"}, "tolerances": {}}
    for name, result in (("layouts", trial.judge()), ("ranks", case)):
        content = common | {"complete": complete, "results": [result.as_json()]}
        (out / f"{name}.json").write_text(json.dumps(content))
    (out / "parts.tsv").write_text("layouts\t0\t12\nranks\t0\t34\n")


def test_all_that_passed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path)
    assert main(["--gpus", "2", str(tmp_path)]) == 0
    content = json.loads((tmp_path / "parity.json").read_text())
    (row,) = content["layouts"]
    assert (row["loss"], row["norm"], row["gradients"], row["weights"]) == (1e-4, 2e-4, 4e-3, 3e-4) and row["passed"]
    assert row["largest_gradient"] == [5e-3, "b"] and content["checks"][0]["passed"] and content["all_passed"]
    assert content["parts"]["ranks"] == {"code": 0, "seconds": 34.0} and content["versions"] == {"torch": "2"}
    text = (tmp_path / "parity.txt").read_text()
    assert text == capsys.readouterr().out and f"made of: {ENGINE}" in text and "2 passed, 0 failed, 0 left out" in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"trial": replace(TRIAL, findings=replace(FOUND, loss=Difference(0.3, "update 1")))},
            "tp2 auto sgd: loss 3.0e-01 > 0.02",
        ),
        ({"trial": replace(TRIAL, findings=None, error="out of memory")}, "tp2 auto sgd: out of memory"),
        ({"trial": replace(TRIAL, findings=None, skipped=True)}, "1 passed, 0 failed, 1 left out"),
        (
            {"trial": replace(TRIAL, made_of="ColumnParallelLinear, cross-attention auto, tower torch")},
            "is not what a run on a GPU",
        ),
        ({"case": replace(CASE, reasons=["4 tensors differ"])}, "resume dp2 auto: 4 tensors differ"),
        ({"case": replace(CASE, made_of="EngineNormColumnLinear, cross-attention auto, tower torch")}, "resume dp2 auto: Engine"),
        ({"complete": False}, "part ranks was not finished, see ranks.log"),
        ({"gpus": 1}, "gpus of layouts is 1, not 2"),
    ],
)
def test_what_did_not_pass_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], said: str
) -> None:
    write(tmp_path, **changes)
    assert main(["--gpus", "2", str(tmp_path)]) == 1
    assert said in capsys.readouterr().out


def test_a_part_on_fewer_gpus_or_without_results_or_with_a_bad_end_is_said(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "ranks.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"gpus": 0, "results": []}))
    (tmp_path / "parts.tsv").write_text("layouts\t1\t12\nranks\t124\t34\n")
    found = joined(tmp_path, 2)
    assert found["wrong"] == [
        "layouts ended with exit code 1",
        "gpus of ranks is 0, not 2",
        "ranks has no result",
        "ranks ended with exit code 124, when its time was over",
    ]
    assert found["failed"] == 0 and not found["all_passed"]


def test_nothing_is_no_success(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 1
    content = joined(tmp_path, None)
    assert content["unfinished"] == ["layouts", "ranks"] and not content["all_passed"]


def test_on_a_cpu_any_modules_do(tmp_path: Path) -> None:
    write(tmp_path, replace(TRIAL, made_of="ColumnParallelLinear, cross-attention auto, tower torch"), gpus=0)
    assert main([str(tmp_path)]) == 0


def test_needs_no_torch() -> None:
    code = "import sys, moss_train.verify.parity; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
