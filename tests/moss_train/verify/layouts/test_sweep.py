"""Starting the check: devices, layouts that are refused, processes that end too early, the command's exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.errors import InputError
from moss_train.cli.main import main
from moss_train.verify.layouts import sweep
from moss_train.verify.layouts.names import choose_layouts


def test_too_few_gpus_are_named_and_auto_takes_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert sweep.choose_device("auto", 2) == "cuda" and sweep.choose_device("cpu", 2) == "cpu"
    assert sweep.choose_device("auto", 4) == "cpu"
    with pytest.raises(InputError, match="--device cuda with 2 GPUs, but the largest layout has 4 ranks"):
        sweep.choose_device("cuda", 4)


@pytest.mark.ranks
def test_a_layout_that_ends_its_processes_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`dying_ranks` speaks as the ranks do, refuses all, and dies after the first result of a layout with two presets."""
    monkeypatch.setattr(sweep, "MODULE", "tests.moss_train.verify.layouts.dying_ranks")
    found = tmp_path / "found.json"
    layouts = [part for name in ("rc:all", "dp1:all,text_only", "one:text_only") for part in ("--layout", name)]
    assert main(["verify", "layouts", "--no-bf16", "--device", "cpu", "--json", str(found), *layouts]) == 1
    content = json.loads(found.read_text())
    assert content["device"] == "cpu" and content["complete"] is True
    assert [(r["layout"], r["preset"], r["optimizer"]) for r in content["results"]] == [
        ("rc", "all", "sgd"),
        ("rc", "all", "adamw"),
        ("dp1", "all", "sgd"),
        ("dp1", "?", "?"),
        ("one", "text_only", "sgd"),
        ("one", "text_only", "adamw"),
    ]
    assert "left no answer" in content["results"][3]["reasons"][0]
    printed = capsys.readouterr()
    assert "rc: refused by the ranks" in printed.out and "0 of 3 layouts compute what one rank computes" in printed.out
    assert "[1/3] rc (1 ranks)" in printed.err


@pytest.mark.ranks
def test_an_interrupted_check_keeps_what_it_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at the file while results come in, or after an interruption, finds those so far."""
    monkeypatch.setattr(sweep, "MODULE", "tests.moss_train.verify.layouts.dying_ranks")
    found = tmp_path / "found.json"

    def interrupt(text: object, **options: object) -> None:
        if "refused by the ranks" in str(text):  # the first result is being shown
            raise KeyboardInterrupt

    monkeypatch.setattr("builtins.print", interrupt)
    arguments = ["verify", "layouts", "--no-bf16", "--device", "cpu", "--json", str(found), "--layout", "rc:all"]
    assert main(arguments) == 130
    content = json.loads(found.read_text())
    assert content["complete"] is False
    assert [(r["optimizer"], r["reasons"]) for r in content["results"]] == [("sgd", ["refused by the ranks"])]


def test_the_layout_that_ended_the_processes_is_the_first_without_all_results() -> None:
    layouts = choose_layouts(["rc:all", "tp1:all,text_only"], 1)  # two and four trials
    check = sweep.Sweep(["all"], "cpu", False, lambda _: None)
    assert [check._unfinished(layouts, results) for results in range(7)] == [0, 0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--preset", "most"], "preset 'most' is unknown"),
        (["--layout", "xp2"], "'xp2' is no part of a layout"),
        (["--ranks", "0"], "--ranks is 0"),
        (["--gpus", "3"], "--gpus is 3"),
        (["--gpus", "2", "--layout", "tp2"], "give one of them"),
        (["--limit-seconds", "0"], "--limit-seconds is 0"),
        (["--json", "nowhere/found.json"], "make it first"),
    ],
)
def test_bad_arguments_end_in_a_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], named: str) -> None:
    assert main(["verify", "layouts", *arguments]) == 2
    assert named in capsys.readouterr().err
