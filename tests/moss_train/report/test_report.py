"""`moss report`: the numbers of report.json, the page, and what it says when something is missing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from model.errors import InputError
from moss_train.cli.main import main
from moss_train.report.collect import read_curve


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_run(folder: Path, *, held_out: bool) -> None:
    rows: list[dict[str, object]] = [{"step": 1, "loss": 4.0}, {"step": 2, "loss": 2.0}]
    if held_out:
        rows = [{"step": 0, "eval_loss": 5.0}, *rows, {"step": 2, "eval_loss": 1.5}]
    write_lines(folder / "metrics.jsonl", rows)


def write_evaluation(folder: Path, f1: float) -> None:
    scores = {"qa": {"colour": 1.0, "kind": 0.5}, "speak": {"f1": f1}, "silence": {"f1": 0.9}, "counts": {"clips_streamed": 3}}
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    answers = [{"scenario_id": "ask-0", "mode": "offline", "answers": [f"reply at {f1}"], "events": []}]
    write_lines(folder / "traces.jsonl", answers)


def test_the_page_and_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "pt1", held_out=True)
    write_run(tmp_path / "pt2", held_out=False)
    write_evaluation(tmp_path / "trained", 0.93)
    write_evaluation(tmp_path / "untrained", 0.21)
    question = {"text": "Which colour?", "answer": "red", "kind": "colour"}
    write_lines(tmp_path / "s.jsonl", [{"id": "ask-0", "num_frames": 1, "fps": 1.0, "video": "x.mp4", "questions": [question]}])
    words = ["report", "--out", str(tmp_path / "out" / "report.html"), "--scenarios", str(tmp_path / "s.jsonl")]
    for name in ("pt1", "pt2"):
        words += ["--run", f"{name}={tmp_path / name}"]
    for name in ("trained", "untrained"):
        words += ["--eval", f"{name}={tmp_path / name}"]
    assert main([*words, "--title", "A <b> title", "--note", "A note."]) == 0
    numbers = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert numbers["loss"]["pt1"] == {"first": 5.0, "last": 1.5, "held_out": True, "steps": 2}
    assert numbers["loss"]["pt2"] == {"first": 4.0, "last": 2.0, "held_out": False, "steps": 2}
    assert numbers["trained"]["speak"]["f1"] == 0.93 and numbers["untrained"]["qa"]["kind"] == 0.5
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "A &lt;b&gt; title" in page and "A note." in page and page.count("<svg") == 2
    assert page.index("reply at 0.93") < page.index("reply at 0.21")
    assert capsys.readouterr().out.strip().endswith("report.html")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "nothing to report"),
        (["--run", "pt1"], "NAME=PATH"),
        (["--run", "pt1=/nowhere"], "/nowhere/metrics.jsonl does not exist"),
        (["--eval", "x=/nowhere"], "/nowhere/scores.json does not exist"),
    ],
)
def test_what_is_missing_is_named(words: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--out", str(tmp_path / "r.html"), *words]) == 2
    assert part in capsys.readouterr().err.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 1.0}\n{"step": 2, "lo', encoding="utf-8")
    with pytest.raises(InputError, match="line 2 is not JSON"):
        read_curve("pt1", tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "eval_loss": 1.0}\n', encoding="utf-8")
    with pytest.raises(InputError, match="holds no training loss"):
        read_curve("pt1", tmp_path)


def test_damaged_scores_and_a_page_of_no_page_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scores.json").write_text("{", encoding="utf-8")
    assert main(["report", "--out", str(tmp_path / "r.html"), "--eval", f"a={tmp_path}"]) == 2
    assert "scores.json is not JSON" in capsys.readouterr().err
    for out in (tmp_path, tmp_path / "r.json"):
        assert main(["report", "--out", str(out), "--eval", f"a={tmp_path}"]) == 2
        assert "ends in .html" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.json"]


def write_streamed(folder: Path, f1: float, corrected: float | None) -> None:
    scores = {
        "qa": {"all": f1},
        "speak": {"f1": f1, "balanced_accuracy": 0.5, "onset_error_median_frames": 0},
        "correction": {"spans": 4, "in_time": corrected},
        "by_behaviour": {
            "alert": {"scenarios": 7, "spans": 9, "f1": f1 / 2, "false_per_minute": 1.5},
            "silence_only": {"scenarios": 2, "spans": 0, "f1": 0.0, "false_per_minute": 0.25},
        },
        "by_kind": {"answer": {"spans": 5, "in_time": f1 / 4}},
    }
    folder.mkdir(parents=True)
    (folder / "scores.json").write_text(json.dumps(scores), encoding="utf-8")
    write_lines(folder / "traces.jsonl", [])


def rows_of(page: str) -> list[list[str]]:
    """The cells of all table rows."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", page, re.S)
    return [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.S) for row in rows]


def test_baselines_behaviours_and_the_cost_of_an_ablation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_streamed(tmp_path / "full", 0.8, 0.75)
    write_streamed(tmp_path / "less", 0.6, 0.25)
    write_streamed(tmp_path / "silent", 0.0, None)
    words = ["report", "--out", str(tmp_path / "report.html"), "--ablation", "no delayed answers=less"]
    for name in ("full", "less", "silent"):
        words += ["--eval", f"{name}={tmp_path / name}"]
    assert main(words) == 0
    rows = rows_of((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert ["speak F1, exact frame", "0.800", "0.600", "0.000"] in rows
    assert ["onset error, median frames", "0.000", "0.000", "0.000"] in rows
    assert ["corrections made in time", "0.750", "0.250", "–"] in rows
    assert not any(row[0] == "answers: colour right" for row in rows if row)  # nobody was asked
    assert ["alert", "7", "9", "1.500", "0.400", "0.300", "0.000"] in rows
    assert ["silence_only", "2", "0", "0.250", "–", "–", "–"] in rows
    assert ["answer", "5", "0.200", "0.150", "0.000"] in rows
    (costs,) = [row for row in rows if row and row[0] == "no delayed answers"]
    assert costs[1] == "0.600 (-0.200)" and costs[2] == "0.500 (+0.000)" and "0.250 (-0.500)" in costs
    capsys.readouterr()
    assert main([*words, "--ablation", "other=nobody"]) == 2
    assert "other=nobody names no evaluation; use one of full, less, silent" in " ".join(capsys.readouterr().err.split())
