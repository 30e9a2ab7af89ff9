"""`moss eval compare` and `moss eval report`: exit codes, tables, JSON, and what an offline W&B run holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inference.evaluation.published.table import load_table
from moss_train.cli.main import main
from moss_train.monitors.wandb_file import read_records, wandb_files
from moss_train.report.evaluation.wandb_upload import Upload
from tests.inference.evaluation.folders import write_evaluations
from tests.ranks import REPOSITORY

QUICK = ["--resamples", "40"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_evaluations(tmp_path_factory.mktemp("evaluations"))


def test_a_run_keeps_its_own_scores_and_silence_does_not(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    right, silent = str(folders["right"]), str(folders["silent"])
    assert main(["eval", "compare", right, silent, *QUICK]) == 0
    out = capsys.readouterr().out
    assert "speak.f1" in out and "-1.000" in out and "18 items in 6 clusters" in out
    assert main(["eval", "compare", right, right, "--keeps", "offline", "push", *QUICK]) == 0
    assert "kept: offline: world/qa.all, loss 0.0000" in capsys.readouterr().out
    assert main(["eval", "compare", right, silent, "--keeps", "offline", *QUICK]) == 1
    assert "not shown that silent keeps the scores of right" in capsys.readouterr().out
    assert main(["eval", "compare", right, silent, "--keeps", "speak.f1", "--margin", "speak.*=1.5", *QUICK]) == 0


def test_the_comparison_as_json(folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "compare", str(folders["right"]), str(folders["silent"]), "--json", "--keeps", "world/qa.all", *QUICK]
    assert main([*words, "--seed", "3"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["suites"]["world"]["metrics"]["qa.all"]["difference"] == -1.0 and found["kept"] is False
    assert found["suites"]["world"]["settings"]["seed"] == 3 and found["keeps"]["world/qa.all"]["verdict"] == "lost"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--keeps", "nonsense"], "no metric of that name"),
        (["--margin", "much"], "is no number"),
        (["--margin", "-1"], "must be 0 or more"),
        (["--confidence", "95"], "confidence is 95"),
        (["--resamples", "0"], "resamples is 0"),
    ],
)
def test_bad_options_are_one_sentence(
    folders: dict[str, Path], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    full = [*(["--resamples", "5"] if "--resamples" not in words else []), *words]
    assert main(["eval", "compare", str(folders["right"]), str(folders["silent"]), *full]) == 2
    assert said in capsys.readouterr().err


def test_other_scenarios_are_refused(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    for name in ("items.jsonl", "run.json"):
        text = (folders["right"] / name).read_text(encoding="utf-8")
        record = json.loads(text) if name == "run.json" else {}
        if record:
            record["fingerprints"]["s2"] = "0" * 64
        (tmp_path / name).write_text(json.dumps(record) if record else text)
    assert main(["eval", "compare", str(folders["right"]), str(tmp_path)]) == 2
    assert "1 of 6 common scenarios differ" in capsys.readouterr().err
    assert main(["eval", "compare", str(folders["right"]), str(tmp_path / "none")]) == 2
    assert "holds neither items.jsonl nor traces.jsonl" in capsys.readouterr().err


def test_the_report_of_two_runs(folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "report", "--eval", f"right={folders['right']}", "--eval", str(folders["silent"]), *QUICK]
    assert main([*words, "--out", str(tmp_path / "page.html"), "--compare", "silent", "right", "--title", "Both"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    content = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))
    assert [model["name"] for model in content["models"]] == ["right", "silent", "class_prior"] and len(content["timelines"]) == 6
    assert [(one["a"], one["b"]) for one in content["comparisons"]] == [("silent", "right")]
    assert "right against silent" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_lmms_eval_found_stands_beside_published_figures(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """pope has no samples here: its total alone is shown, 0.885 +- 0.01 in the table's per cent, of 10 of 20 documents."""
    (row,) = [row for row in load_table().rows if row.task == "pope"]
    totals = {f"{row.metric},{row.filter}": 88.5 / row.scale, f"{row.metric}_stderr,{row.filter}": 1 / row.scale}
    content = {"results": {"pope": {"alias": "pope", **totals}}, "n-samples": {"pope": {"effective": 10, "original": 20}}}
    (tmp_path / "20260101_results.json").write_text(json.dumps(content))
    words = ["eval", "report", "--eval", f"right={folders['right']}", "--lmms", f"right={tmp_path}", "--no-baselines", *QUICK]
    assert main([*words, "--out", str(tmp_path / "page.html"), "--timelines", "0"]) == 0
    (table,) = json.loads((tmp_path / "page.json").read_text(encoding="utf-8"))["published"]
    assert table["columns"][:4] == ["benchmark", "task", "right", "RT-SFT"] and len(table["rows"]) == 1
    assert table["rows"][0][:4] == ["POPE", "pope", "88.50 ± 1.00 *", "88.17"]
    assert any(note.startswith("* only some") for note in table["notes"]) and any("AI2D" in note for note in table["notes"])
    assert main(["eval", "report", "--lmms", f"x={tmp_path / 'none'}", "--out", str(tmp_path / "page.html")]) == 2
    assert "none holds neither" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "page.txt", "--eval", "a=b"], "not the name of a page"),
        (["--out", "page.html"], "at least one --eval"),
        (["--out", "page.html", "--eval", "=b"], "not of the form"),
        (["--out", "page.html", "--eval", "a=b", "--eval", "a=c"], "twice"),
    ],
)
def test_a_report_of_nothing_is_refused(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "report", *words]) == 2
    assert said in capsys.readouterr().err


def test_wandb_offline_holds_items_metrics_and_page(folders: dict[str, Path], tmp_path: Path) -> None:
    from wandb.proto import wandb_internal_pb2

    page = tmp_path / "page.html"
    words = [
        "eval",
        "report",
        "--eval",
        f"right={folders['right']}",
        "--no-baselines",
        "--out",
        str(page),
        "--wandb",
        "project",
        *QUICK,
    ]
    done = subprocess.run(
        [sys.executable, "-m", "moss_train.cli.main", *words],
        cwd=REPOSITORY, env=os.environ | {"WANDB_MODE": "offline"}, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (file,) = wandb_files(tmp_path)
    summary, artifacts, project = {}, [], ""
    for content in read_records(file):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "summary":
            summary |= {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "run":
            project = record.run.project
        elif kind == "artifact" and record.artifact.type == "evaluation":
            artifacts += [entry.path for entry in record.artifact.manifest.contents]
    assert project == "project" and sorted(artifacts) == ["page.html", "page.json"]
    assert summary["world/speak.f1/right"] == 1.0 and summary["world/qa.all/right.low"] == 1.0
    (table,) = file.parent.glob("files/media/table/items/world*.json")
    rows = json.loads(table.read_text(encoding="utf-8"))
    assert len(rows["data"]) == 18 and rows["columns"][:5] == ["model", "scenario", "item", "task", "mode"]
    first = dict(zip(rows["columns"], next(row for row in rows["data"] if row[2] == "q0"), strict=True))
    assert (first["model"], first["question"], first["reply"], first["right"]) == ("right", "Which colour?", "blue", 1)
    (html,) = file.parent.glob("files/media/html/*.html")
    assert html.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_nobody_logged_in_is_one_sentence(tmp_path: Path) -> None:
    """In another process, for the client keeps what it knows of accounts."""
    what = Upload(project="p", entity=None, name="n", page=tmp_path / "page.html", numbers=tmp_path / "page.json")
    code = (
        "from pathlib import Path\nfrom model.errors import InputError\nfrom moss_train.report.evaluation.wandb_upload import *\n"
        f"what = Upload(project='p', entity=None, name='n', page=Path({str(what.page)!r}), numbers=Path({str(what.numbers)!r}))\n"
        f"try:\n    upload(what, {{}}, {{}}, Path({str(tmp_path)!r}))\nexcept InputError as error:\n    print(error)\n"
    )
    variables = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=variables | {"HOME": str(tmp_path)}, capture_output=True, text=True,
        timeout=90, check=False,
    )  # fmt: skip
    assert "nobody is logged in to W&B; run `wandb login`" in done.stdout, done.stderr
