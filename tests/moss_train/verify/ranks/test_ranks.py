"""`moss verify ranks` on real ranks over gloo, what ends it early, and what its rows say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from moss_train.cli.main import main
from moss_train.verify.layouts.names import parse_layout
from moss_train.verify.ranks import sweep
from moss_train.verify.ranks.findings import CaseResult, bounds_of
from moss_train.verify.ranks.names import CHAINS, GOLDEN, KINDS, Job, jobs_of
from moss_train.verify.ranks.report import as_markdown, as_text, cells, summary, worst
from moss_train.verify.ranks.sweep import run_checks
from moss_train.verify.ranks.training import equal_weights
from tests.moss_train.verify.test_golden import _write as write_golden
from tests.ranks import Answer

GUARDS = ("copies", "agreement", "skip", "rewind", "overlap", "failed save")


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch, answer_of_ranks: Answer) -> None:
    """Without the start of the ranks, which is tested with the command."""
    monkeypatch.setattr(sweep, "run_on_ranks", answer_of_ranks)


def expected(kind: str, guards: int = 2) -> set[tuple[str, str, str]]:
    """Check, layout and modules of everything on two ranks."""
    chain = CHAINS[2]
    found = {("resume", name, kind) for name in chain}
    found |= {("reshard", f"{one} > {two}", kind) for one, two in zip(chain, (*chain[1:], "one"), strict=True)}
    found.add(("kernels", "one", kind))
    return found | {(check, name, kind) for check in GUARDS for name in chain[:guards]}


def check_all(results: list[CaseResult]) -> None:
    for result in results:
        assert result.verdict == "ok", (result.check, result.layout, result.reasons, result.skipped)
        if result.check == "resume":
            assert result.figures["trained"] == result.figures["tensors"] > 100, "every weight and state is one that changes"
        if result.check == "copies":
            assert result.figures["ranks_told"] == 2 and result.figures["groups"] >= 1


@pytest.mark.ranks
def test_two_ranks_in_fp32(tmp_path: Path, forked: None) -> None:
    write_golden(tmp_path)
    results = run_checks(2, ["torch"], "cpu", lambda _: None, golden=tmp_path)
    check_all(results)
    replayed = {("golden", name, "torch") for name in (*GOLDEN[2], "one")}
    assert {(r.check, r.layout, r.modules) for r in results} == expected("torch") | replayed
    assert all(r.figures["logits"] > 0 for r in results if r.check == "golden"), "a difference that is measured is not 0"


@pytest.mark.ranks
@pytest.mark.slow
def test_two_ranks_in_bf16(forked: None) -> None:
    results = run_checks(2, ["auto"], "cpu", lambda _: None)
    check_all(results)
    assert {(r.check, r.layout, r.modules) for r in results} == expected("auto")


@pytest.mark.ranks
def test_one_rank_has_no_copies(forked: None) -> None:
    results = run_checks(1, ["torch"], "cpu", lambda _: None)
    check_all(results)
    assert [r.check for r in results] == ["resume", *GUARDS[1:], "kernels", "reshard"]


@pytest.mark.ranks
def test_a_job_that_ends_its_processes_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sweep, "MODULE", "tests.moss_train.verify.ranks.dying_process")
    found = tmp_path / "found.json"
    assert main(["verify", "ranks", "--device", "cpu", "--modules", "torch", "--json", str(found)]) == 1
    content = json.loads(found.read_text())
    assert content["complete"] is True and content["ranks"] == 2 and content["gpus"] == 0
    assert [(r["check"], bool(r["reasons"])) for r in content["results"]] == [
        ("chain", False),
        ("guards", True),
        ("alone", False),
    ]
    assert "left no answer" in content["results"][1]["reasons"][0]
    assert "2 of 3 checks passed on cpu" in capsys.readouterr().out


@pytest.mark.ranks
def test_none_is_started_again_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "MODULE", "tests.moss_train.verify.ranks.dying_process")
    results = run_checks(2, ["torch"], "cpu", lambda _: None, seconds=1e-3)
    assert [(r.check, r.verdict) for r in results] == [("chain", "ok"), ("guards", "FAILS"), ("alone", "skipped")]


@pytest.mark.ranks
def test_no_layout_is_begun_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch, forked: None, tmp_path: Path) -> None:
    monkeypatch.setattr(sweep, "MODULE", "tests.moss_train.verify.ranks.broken_process")
    monkeypatch.setattr(sweep, "jobs_of", lambda kinds, golden: [Job("golden"), Job("guards", "torch")])
    monkeypatch.setenv("FAULTS", "all:end_behind_the_first_layout")
    write_golden(tmp_path)
    results = run_checks(2, ["torch"], "cpu", lambda _: None, golden=tmp_path, seconds=600)
    assert [(r.check, r.layout, r.verdict) for r in results] == [
        ("golden", GOLDEN[2][0], "ok"),
        *(("golden", name, "skipped") for name in GOLDEN[2][1:]),
        ("guards", "-", "skipped"),
    ]


@pytest.mark.ranks
def test_without_time_everything_is_left_out(forked: None) -> None:
    results = run_checks(2, ["torch"], "cpu", lambda _: None, seconds=1e-3)
    assert [(r.check, r.verdict) for r in results] == [("chain", "skipped"), ("guards", "skipped"), ("alone", "skipped")]
    assert summary(results, "cpu") == "0 of 3 checks passed on cpu; 3 were left out"


def test_every_layout_takes_all_its_ranks() -> None:
    for ranks, names in (*CHAINS.items(), *GOLDEN.items()):
        assert all(parse_layout(name).ranks == ranks for name in names)
    works = [job.work for job in jobs_of(list(KINDS), golden=True)]
    assert works == ["chain", "chain", "guards", "guards", "golden", "alone", "alone", "golden alone"]


def test_a_changed_bit_and_a_missing_tensor_are_counted() -> None:
    weights = {"a": torch.tensor([1.0, float("nan")]), "b": torch.zeros(2)}
    assert equal_weights(weights, {name: tensor.clone() for name, tensor in weights.items()}) == 0
    assert equal_weights(weights, weights | {"b": torch.tensor([0.0, -0.0])}) == 1, "equal numbers of other bits"
    assert equal_weights(weights, {"a": weights["a"]}) == 1
    assert equal_weights({"a": torch.zeros(2, dtype=torch.bfloat16)}, {"a": torch.full((2,), 2.0**-100).bfloat16()}) == 1


def test_rows_say_what_differs() -> None:
    good = CaseResult(
        "resume", "dp2", 2, "auto", "bf16", figures={"tensors": 9, "differ_when_loaded": 0, "loss": 0.0, "norm": 0.0}
    )
    bad = CaseResult("reshard", "dp2 > cp2", 2, "torch", "fp32", figures={"tensors": 9, "differ_when_loaded": 2, "loss": 3e-3})
    bad.expect(False, "2 of 9 weights differ")
    golden = CaseResult("golden", "one", 1, "torch", "fp32", figures={"logits": 2e-6, "loss": 1e-7})
    late = CaseResult("resume", "cp2", 2, skipped="no time was left")
    assert cells(good)[4:8] == ["0", "0", "9", "0"] and cells(bad)[4:8] == ["3.0e-03", "-", "9", "2"]
    assert (
        cells(golden)[4:8] == ["-"] * 4 and worst(golden) == "largest absolute difference 2.0e-06 (logits)" and worst(bad) == ""
    )
    lines = as_text([good, bad, golden, late]).splitlines()
    assert [line.split()[-1] for line in lines[1:]] == ["ok", "FAILS", "ok", "skipped"]
    assert as_markdown([bad]).splitlines()[2].endswith("| FAILS |")
    assert bounds_of("fp32")["loss"] < bounds_of("bf16")["loss"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--ranks", "3"], "--ranks is 3; use one of 1, 2, 4, 8"),
        (["--limit-seconds", "0"], "--limit-seconds is 0"),
        (["--golden", "nowhere"], "--golden nowhere holds no io.safetensors"),
        (["--json", "nowhere/found.json"], "make it first"),
    ],
)
def test_bad_arguments_end_in_a_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], named: str) -> None:
    assert main(["verify", "ranks", *arguments]) == 2
    assert named in capsys.readouterr().err
