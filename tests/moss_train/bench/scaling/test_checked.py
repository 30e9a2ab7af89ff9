"""`moss plan check` with files of `moss bench scaling`: predicted anew, by number of GPUs, frames that are dealt alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moss_train.bench.scaling.cases import Options, make_cases
from moss_train.bench.scaling.predict import all_packs, predicted
from moss_train.cli.main import EXIT_BAD_INPUT, main
from moss_train.planning.flops import PEAK
from moss_train.planning.rates import read_table
from tests.moss_train.planning.calibration.synthetic import results

OPTIONS = Options(gpus=(1, 2), layouts=("one", "dp2", "tp2.sp"), model="small", precision="bf16", rows=1024, frames=32, seed=3)


@pytest.fixture(scope="module")
def measured() -> dict[str, Any]:
    """A file whose steps and peaks are what the plan says of an H100."""
    cases = []
    for case in make_cases(OPTIONS)[0]:
        told = predicted(case, all_packs(case, OPTIONS.seed), PEAK["H100"], read_table()["H100"])
        cases.append({
            **case.to_dict(), "name": case.name, "overrides": [*case.group, *case.sizes], "step": told["step"],
            "memory": {"peak": told["peak"], "all": [{"static": 0}]},
        })  # fmt: skip
    return {
        "hardware": {"device": "NVIDIA H100"},
        "date": "2026-11-28",
        "gpus": [1, 2],
        "options": {"seed": 3},
        "cases": cases,
    }


def check(folder: Path, *contents: dict[str, Any]) -> tuple[int, Path]:
    """Exit code, and where the comparison is written."""
    paths = [folder / f"results{index}.json" for index in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_text(json.dumps(content))
    out = folder / "compared.json"
    out.unlink(missing_ok=True)
    return main(["plan", "check", *map(str, paths), "--out", str(out)]), out


def with_case(content: dict[str, Any], index: int, **changed: Any) -> dict[str, Any]:
    cases = list(content["cases"])
    cases[index] = {**cases[index], **changed}
    return {**content, "cases": cases}


def test_what_the_plan_says_of_a_layout_is_found_again_and_what_is_off_is_told(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [case["name"] for case in measured["cases"]]
    dealt = [name for name in names if "own frames" not in name]
    assert {case["ranks"] for case in measured["cases"]} == {1, 2} and len(dealt) == len(names) - 1
    code, out = check(tmp_path, measured)
    found = json.loads(out.read_text())["cases"]
    assert code == 0 and [case["name"] for case in found] == dealt
    assert all(case["step"]["error"] == pytest.approx(0, abs=1e-9) == case["memory"]["error"] for case in found)
    place = next(place for place, case in enumerate(measured["cases"]) if case["layout"] == "tp2.sp")
    slower = with_case(measured, place, step=1.25 * measured["cases"][place]["step"])
    capsys.readouterr()
    code, out = check(tmp_path, slower)
    assert code == 1 and f"largest error 20.0% ({names[place]})" in " ".join(capsys.readouterr().out.split())


def test_a_page_of_several_calls_and_one_gpu_beside(measured: dict[str, Any], tmp_path: Path) -> None:
    one = results(read_table()["H100"].rates)
    failed = with_case(measured, 0, failed="rank 0: no memory")
    code, out = check(tmp_path, {"summary": [], "runs": [measured, failed]}, one)
    found = json.loads(out.read_text())["cases"]
    singles = len(found) - 2 * (len(measured["cases"]) - 1) + 1
    assert code == 0 and singles > 2 and found[singles]["name"] == measured["cases"][0]["name"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"hardware": {"device": "NVIDIA H200"}}, "different cards"),
        ({"hardware": {}}, "hardware has no 'device'"),
        ({"cases": []}, "holds no measured case whose frames are dealt"),
        ({"cases": [{"name": "pt2 one", "step": 1.0}]}, "case 'pt2 one' cannot be read"),
    ],
)
def test_bad_files_are_one_sentence(
    measured: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, Any], told: str
) -> None:
    files = [measured, {**measured, **changed}] if "hardware" in changed else [{**measured, **changed}]
    code, out = check(tmp_path, *files)
    assert code == EXIT_BAD_INPUT and told in capsys.readouterr().err and not out.exists()
