"""`moss bench scaling` whole, on two real ranks of a CPU; and what becomes of cases that fail on one of them or hang."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from moss_train.bench.scaling.cases import Case, Options, make_cases
from moss_train.bench.scaling.page import PAGE
from moss_train.bench.scaling.page import main as page
from moss_train.bench.scaling.run import Scaling
from moss_train.cli.main import EXIT_BAD_INPUT, main

REPOSITORY = Path(__file__).resolve().parents[4]
SIZES = {"model": "tiny", "precision": "fp32", "optimizer": "adamw", "rows": 96, "frames": 8}
WORDS = ["bench", "scaling", "--model", "tiny", "--precision", "fp32", "--optimizer", "adamw", "--rows", "96", "--frames", "8"]
OPTIONS = Options(gpus=(2,), kinds=("pt2",), steps=1, warmup=1, profile=False, **SIZES)  # type: ignore[arg-type]


def test_two_ranks_are_measured_beside_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "scaling.json"
    words = ["--steps", "1", "--warmup", "1", "--layouts", "one,dp2,pp2", "--device", "cpu", "--out", str(out)]
    assert main([*WORDS, *words]) == 0
    found = json.loads(out.read_text())
    cases = {(case["kind"], case["layout"]): case for case in found["cases"]}
    assert set(cases) == {
        *(("pt2", "one"), ("strong", "one"), ("sft", "one"), ("pt2", "dp2"), ("sft", "dp2"), ("own", "dp2"), ("layouts", "pp2"))
    } and not found["left_out"]  # fmt: skip
    assert not any("failed" in case for case in cases.values())
    one, two = cases["pt2", "one"], cases["pt2", "dp2"]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5), "two equal packs on two ranks are one pack on one"
    assert two["flops"] == pytest.approx(2 * one["flops"]) == cases["strong", "one"]["flops"]
    assert two["tflops"] == pytest.approx(two["flops"] / two["step"] / 2e12)
    assert cases["sft", "dp2"]["encoded"] == [8, 8] and cases["own", "dp2"]["encoded"] == [14, 2]
    assert cases["sft", "dp2"]["loss"] != cases["own", "dp2"]["loss"]  # the second goes on with what the first trained
    for case in cases.values():
        assert case["step"] == pytest.approx(case["phases"]["step"]["most"]) and len(case["memory"]["ranks"]) == case["ranks"]
        assert ("communication" in case) == (case["ranks"] == 2)
    kinds = two["communication"]["kinds"]
    assert kinds["reduce-scatter"]["calls"] >= 2 and kinds["all-gather"]["calls"] >= 2, "gradients and weights of both modules"
    assert "send-receive" not in kinds and cases["layouts", "pp2"]["communication"]["kinds"]["send-receive"]["calls"] >= 2
    assert found["summary"]["weak_pt2"] == pytest.approx(two["tflops"] / one["tflops"])
    assert found["summary"]["balanced_over_own"] == cases["own", "dp2"]["step"] / cases["sft", "dp2"]["step"]
    _page_of(out, tmp_path, capsys)


def _page_of(out: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["bench", "scaling", "--table", str(out)]) == 0
    assert "### steps" in (shown := capsys.readouterr().out) and "pt2 pp2, 2 x 96 rows, 8 frames" in shown
    copy = folder / "page.md"
    shutil.copy(REPOSITORY / PAGE, copy)
    assert page(["--results", str(out), "--page", str(copy)]) == 0 and "Not measured." not in copy.read_text()
    assert page(["--check", "--page", str(copy)]) == 0
    copy.write_text(copy.read_text().replace("pt2 pp2", "pt2 pp3"))
    assert page(["--check", "--page", str(copy)]) == 1


def test_the_page_is_as_its_file_makes_it() -> None:
    path = REPOSITORY / PAGE
    if path.with_suffix(".json").exists():
        assert page(["--check", "--page", str(path)]) == 0


def run(cases: list[Case], **options: Any) -> dict[str, Any]:
    kept: list[int] = []
    scaling = Scaling(
        dataclasses.replace(OPTIONS, **options), "cpu", lambda found: kept.append(len(found["cases"])), lambda line: None
    )
    found = scaling.run(cases, [])
    assert kept[-1] == len(found["cases"])
    return found


def test_a_case_that_fails_on_one_rank_ends_neither_the_other_nor_the_next_case() -> None:
    (good,), _ = make_cases(OPTIONS)
    bad = dataclasses.replace(good, frames=((8,), (90,)))  # the second rank has no room for them, the first waits for it
    found = run([bad, good])
    first, second = found["cases"]
    assert first["name"] == bad.name and first["failed"].startswith("rank 1: 96 rows do not hold 90 frames")
    assert second["name"] == good.name and second["step"] > 0 and not found["left_out"]


def test_a_case_without_a_sign_of_life_is_ended() -> None:
    (good,), _ = make_cases(OPTIONS)
    (case,) = run([good], case_seconds=0.01)["cases"]
    assert case["failed"].startswith("no answer in")


def test_when_the_time_is_up_the_rest_is_left_out() -> None:
    (good,), _ = make_cases(OPTIONS)
    found = run([good], limit_seconds=0.5)
    assert not found["cases"] and found["left_out"] == [{"name": good.name, "reason": "the time of --limit-seconds was up"}]


def test_what_a_gpu_does_not_hold_is_left_out_before_it_is_tried() -> None:
    (good,), _ = make_cases(OPTIONS)
    scaling = Scaling(OPTIONS, "cpu", lambda found: None, lambda line: None, card=1 << 20)
    found = scaling.run([good], [])
    assert not found["cases"] and "GiB by the plan, and a GPU has 0.0" in found["left_out"][0]["reason"]


@pytest.mark.parametrize(("words", "said"), [(["--gpus", "0"], "--gpus has '0'"), (["--cases", "x"], "--cases has 'x'")])
def test_bad_words_end_in_a_sentence(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*WORDS, *words]) == EXIT_BAD_INPUT and said in capsys.readouterr().err


@pytest.mark.parametrize("script", ["exit 3", "exec sleep 60"])
def test_ranks_that_end_badly_behind_their_last_case_lose_nothing(script: str, tmp_path: Path) -> None:
    cases, _ = make_cases(OPTIONS)
    lines, said = tmp_path / "lines", list[str]()
    lines.write_text("".join(json.dumps({"done": case.name, "case": {"step": 0.5}}) + "\n" for case in cases))
    options = dataclasses.replace(OPTIONS, case_seconds=-29.5)  # with START_SECONDS half a second
    scaling = Scaling(options, "cpu", lambda results: None, said.append)
    with (tmp_path / "output").open("w+") as output, subprocess.Popen(["sh", "-c", script], stdout=output) as process:
        try:
            settled, again = scaling._watch(process, lines, cases, output)
        finally:
            process.kill()
    assert {case.name for case in cases} <= settled and not again
    assert scaling.results["cases"] == [{"step": 0.5}] * len(cases) and "all cases are measured" in said[-1]
