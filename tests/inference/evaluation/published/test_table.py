"""The published table: its figures, its checks, its tasks in the installed lmms-eval, results beside it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference.evaluation.published.__main__ import main
from inference.evaluation.published.beside import beside, read_results, text_table
from inference.evaluation.published.table import GROUP, REFERENCE, TASKS, load_table
from model.errors import InputError


def tasks_of_lmms_eval() -> Path:
    """The task files of the installed package, which `make install` brings."""
    found = importlib.util.find_spec("lmms_eval")
    folder = Path(found.origin).parent if found and found.origin else Path(sys.prefix) / "lmms" / "lmms_eval"
    assert (folder / "tasks").is_dir(), "lmms-eval is not installed; run `make install`"
    return folder / "tasks"


class _Tags(yaml.SafeLoader):
    """Reads a task file without loading the functions that it names."""


_Tags.add_multi_constructor("!", lambda loader, suffix, node: f"!{suffix}")


def read_task(path: Path) -> dict[str, Any]:
    """A task's settings, those of the files that it includes under its own."""
    content: dict[str, Any] = yaml.load(path.read_text(), _Tags)
    included = content.pop("include", [])
    whole: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        whole |= read_task(path.parent / name)
    return whole | content


@pytest.fixture(scope="module")
def installed() -> dict[str, dict[str, Any]]:
    """The settings of every task of the table, from lmms-eval's files and from ours."""
    wanted = set(load_table().tasks)
    found: dict[str, dict[str, Any]] = {}
    files = [path for folder in (tasks_of_lmms_eval(), TASKS) for path in folder.rglob("*") if path.is_file()]
    for path in files:
        if path.suffix not in (".yaml", "") and not path.name.endswith("_yaml"):
            continue
        for name in re.findall(r"^task: *[\"']?([\w-]+)[\"']? *$", path.read_text(errors="ignore"), re.M):
            users = [path] if path.suffix == ".yaml" else [p for p in path.parent.glob("*.yaml") if _inherits(p, path.name)]
            for user in users if name in wanted else []:
                found[name] = read_task(user)
    return found


def _inherits(path: Path, name: str) -> bool:
    """Whether a task file includes another, and takes its name from there."""
    content = yaml.load(path.read_text(), _Tags)
    return content.get("include") == name and "task" not in content


def test_every_task_and_metric_is_in_the_installed_package(installed: dict[str, dict[str, Any]]) -> None:
    for row in load_table().rows:
        assert row.task in installed, f"{row.task} is no task of lmms-eval"
        settings = installed[row.task]
        assert row.metric in [metric["metric"] for metric in settings["metric_list"]], row
        assert row.filter in [chain["name"] for chain in settings.get("filter_list", [{"name": "none"}])], row


def test_figures_are_those_of_the_picture() -> None:
    """Some of them, typed again from the picture's transcript: a corner each, and the rows that say most."""
    table = load_table()
    rows = {row.name: list(row.figures.values()) for row in table.rows}
    assert len(rows) == 25
    assert rows["OCRBench"] == [677, 705, 759, 829, 864]
    assert rows["MUIRBench"] == [39.92, 39.88, None, 37.50, 45.42]
    assert rows["ZeroBench (sub)"] == [7.83, 8.53, None, 11.98, 8.99]
    assert rows["TempCompass (Y/N)"] == [72.03, 70.73, None, None, 74.36]
    assert rows["Video-Holmes"] == [39.30, 39.50, None, None, 33.00]
    assert "transcribed from an image" in table.certainty
    # Sums of the two columns without gaps, from the transcript: 677 + 53.11 + 83.04 + ... and 705 + 48.99 + 82.03 + ...
    assert sum(row[0] for row in rows.values()) == pytest.approx(2010.79)
    assert sum(row[1] for row in rows.values()) == pytest.approx(2013.04)


def test_the_group_has_every_task() -> None:
    group = yaml.safe_load((TASKS / f"{GROUP}.yaml").read_text())
    assert group == {"group": GROUP, "task": load_table().tasks}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["rows"].append(t["rows"][0]), "OCRBench 2 times"),
        (lambda t: t["rows"][0]["figures"].pop("SFT"), "it must have RT-SFT, SFT"),
        (lambda t: t["rows"][0]["figures"].update(SFT="705"), "has '705' for SFT"),
        (lambda t: t["rows"][0].update(scale=0), "has scale 0"),
        (lambda t: t["rows"][0].update(kind="sound"), "of kind 'sound'"),
        (lambda t: t["rows"][0].update(colour="red"), "no table of published figures"),
        (lambda t: t.pop("rows"), "no table of published figures"),
    ],
)
def test_a_wrong_table_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    content = json.loads(REFERENCE.read_text())
    change(content)
    path = tmp_path / "table.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=words):
        load_table(path)


def results(task: str, **values: Any) -> dict[str, Any]:
    return {"results": {task: {"alias": task, **{key.replace("__", ","): value for key, value in values.items()}}}}


def test_results_beside_figures() -> None:
    """0.42 of MMMU is 42.00, 5.26 below the published 47.36; 0.7 of OCRBench is 700 points; a part of POPE is marked."""
    table = load_table()
    part = results("pope", pope_accuracy__none=0.5) | {"n-samples": {"pope": {"original": 9000, "effective": 10}}}
    older = results("mmmu_val", mmmu_acc__none=0.1)
    found = beside(
        table, [older, results("ocrbench", ocrbench_accuracy__none=0.7), results("mmmu_val", mmmu_acc__none=0.421), part]
    )
    rows = {row.published.name: row for row in found}
    assert rows["MMMU"].ours == pytest.approx(42.1)
    assert rows["MMMU"].above("RT-SFT") == pytest.approx(42.1 - 47.36)
    assert rows["OCRBench"].ours == pytest.approx(700)
    assert rows["POPE"].above("Llama-3.2-11B-V") is None
    assert not rows["POPE"].complete
    assert rows["V*"].ours is None
    assert "50.00*" in text_table(table, found)


def test_standard_errors_have_the_unit_of_the_figures() -> None:
    found = beside(load_table(), [{"results": {"realworldqa": {"exact_match,none": 0.5, "exact_match_stderr,none": 0.02}}}])
    assert next(row.stderr for row in found if row.ours is not None) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [({"mmmu_acc__none": "N/A"}, "has 'N/A' for mmmu_acc,none"), ({"acc__none": 1.0}, r"its metrics: acc,none")],
)
def test_a_result_without_its_metric_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        beside(load_table(), [results("mmmu_val", **values)])


def test_files_that_are_no_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "b.json").write_text("{")
    for name, words in (("a.json", "no results by task"), ("b.json", "no JSON"), ("c.json", "do not exist")):
        with pytest.raises(InputError, match=words):
            read_results(tmp_path / name)
    assert main([str(tmp_path / "a.json")]) == 2
    assert "no results by task" in capsys.readouterr().err


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x_results.json"
    path.write_text(json.dumps(results("vsibench", vsibench_overall__none=0.25)))
    assert main([str(path), "--label", "mine"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split()[:3] == ["benchmark", "task", "mine"]
    assert next(line for line in out if line.startswith("VSI-Bench")).split() == [
        "VSI-Bench",
        "vsibench",
        "25.00",
        "36.20",
        "33.48",
        "-",
        "-",
        "28.30",
    ]
    assert main(["--tasks"]) == 0
    assert capsys.readouterr().out.strip().split(",") == load_table().tasks
    assert main(["--folder"]) == 0
    assert Path(capsys.readouterr().out.strip()) == TASKS
