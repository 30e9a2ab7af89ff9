"""The content of a report out of evaluation folders: intervals, what is missing, which scenarios are shown, distributions."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from inference.evaluation.comparing import Margins, compare_results, verdict
from inference.evaluation.items import Item, Metrics
from inference.evaluation.reporting.content import ReportRequest, build
from inference.evaluation.reporting.distributions import distributions
from inference.evaluation.reporting.selection import choose
from inference.evaluation.results import baselines_in, is_higher_better, load_by_id, load_results
from inference.evaluation.statistics.bootstrap import BootstrapSettings
from inference.evaluation.statistics.non_inferiority import KEPT, LOST
from inference.evaluation.suites.suite import Suite
from model.errors import InputError
from tests.inference.evaluation.folders import write_evaluations

QUICK = BootstrapSettings(resamples=40)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_evaluations(tmp_path_factory.mktemp("evaluations"))


def request(folders: dict[str, Path], **changed: object) -> ReportRequest:
    values = {
        "models": [load_results(name, folders[name]) for name in ("right", "silent")],
        "baselines": baselines_in(folders["right"]),
        "scenarios": load_by_id([folders["scenarios"]]),
        "statistics": QUICK,
    }
    return ReportRequest(**(values | changed))  # type: ignore[arg-type]


def test_the_content_says_what_the_folders_say(folders: dict[str, Path]) -> None:
    """`right` finds all of six spans, `silent` none; class_prior is a baseline; all is plain JSON."""
    told: list[str] = []
    content = build(request(folders), lambda what, done, total: told.append(what))
    assert json.loads(json.dumps(content)) == content
    assert [(model["name"], model["baseline"]) for model in content["models"]] == [
        ("right", False), ("silent", False), ("class_prior", True),
    ]  # fmt: skip
    world = next(suite for suite in content["suites"] if suite["name"] == "world")
    assert world["models"]["right"]["metrics"]["speak.f1"]["estimate"] == 1.0
    assert world["models"]["silent"]["metrics"]["speak.f1"]["estimate"] == 0.0
    assert world["models"]["right"]["metrics"]["qa.all"]["estimate"] == 1.0
    assert "speak.false_per_minute" in world["lower_is_better"]
    right = content["models"][0]
    assert right["usage"] == {"frames": 24, "visual_tokens": 2424} and right["seconds"] == 1.5 and right["traces"] == {
        "push": 6, "offline": 6,
    }  # fmt: skip
    (comparison,) = content["comparisons"]
    assert (comparison["a"], comparison["b"]) == ("right", "silent")
    assert comparison["suites"]["world"]["metrics"]["speak.f1"]["difference"] == -1.0
    assert comparison["suites"]["world"]["changed"]["event.hit"]["only_a"] == 6
    assert {"world, right", "right and silent"} <= set(told)


def test_what_is_missing_is_said(folders: dict[str, Path]) -> None:
    notes = build(request(folders))["notes"]
    assert any(note.startswith("silent: 1 runs ended early") and "the video ends at 3 s" in note for note in notes)
    assert any(note.startswith("silent: frames and tokens that it was given were not recorded") for note in notes)
    assert not any("right: " in note for note in notes)
    assert any("No timelines" in note for note in build(request(folders, scenarios={}))["notes"])


def test_timelines_hold_truth_speech_and_answers(folders: dict[str, Path]) -> None:
    lines = {line["id"]: line for line in build(request(folders))["timelines"]}
    assert set(lines) == {f"s{number}" for number in range(6)}
    line = lines["s1"]
    assert line["tasks"][0] == "narration" and line["changes"] == [{"t": 2.0, "before": "no fence", "after": "a fence"}]
    streams = {stream["model"]: stream for stream in line["streams"]}
    assert set(streams) == {"right", "silent"}  # a rule such as class_prior is not drawn
    (said,) = streams["right"]["utterances"]
    assert (said["t"], said["end"], said["text"], said["verdict"]) == (2.0, 3.0, "a fence appears.", "right")
    assert streams["right"]["hit"] == [0] and streams["silent"]["hit"] == [] and streams["silent"]["utterances"] == []
    replies = line["questions"][0]["replies"]
    assert replies["right"] == {"text": "blue", "right": True} and replies["silent"] == {"text": "", "right": False}
    assert lines["s0"]["errors"][0]["error"] == "the video ends at 3 s"


def test_scenarios_that_were_changed_since_have_no_timeline(folders: dict[str, Path]) -> None:
    scenarios = load_by_id([folders["scenarios"]])
    scenarios["s2"].spans[0].text = "another truth."
    content = build(request(folders, scenarios=scenarios))
    assert {line["id"] for line in content["timelines"]} == {"s0", "s1", "s3", "s4", "s5"}
    assert "1 scenarios were changed after they were run, and have no timelines; the first is s2." in content["notes"]


def test_a_folder_of_traces_alone_is_scored(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "traces.jsonl").write_bytes((folders["right"] / "traces.jsonl").read_bytes())
    with pytest.raises(InputError, match="--scenarios"):
        load_results("x", tmp_path)
    found = load_results("x", tmp_path, load_by_id([folders["scenarios"]]))
    assert found.items == load_results("right", folders["right"]).items and "scored now" in found.notes[0]
    with pytest.raises(InputError, match="holds neither"):
        load_results("x", tmp_path / "nothing")


def test_the_silent_run_keeps_no_score_and_the_same_run_keeps_all(folders: dict[str, Path]) -> None:
    right, silent = (load_results(name, folders[name]) for name in ("right", "silent"))
    same = compare_results(right, right, QUICK, keeps=["offline", "world/speak.*"])
    assert same.kept and {"offline: world/qa.all", "world/speak.f1"} <= set(same.keeps)
    lost = compare_results(right, silent, QUICK, keeps=["speak.f1", "speak.false_per_minute"])
    assert lost.keeps["world/speak.f1"].verdict == LOST and lost.keeps["world/speak.false_per_minute"].verdict == KEPT
    wide = compare_results(right, silent, QUICK, keeps=["world/speak.f1"], margins=Margins(by_metric={"speak.*": 2.0}))
    assert wide.kept and wide.keeps["world/speak.f1"].margin == 2.0
    with pytest.raises(InputError, match="--keeps nonsense: no metric"):
        compare_results(right, silent, QUICK, keeps=["nonsense"])


def test_what_is_neither_better_nor_worse_differs(folders: dict[str, Path]) -> None:
    """Tokens between frames are neither good nor bad."""
    right, silent = (load_results(name, folders[name]) for name in ("right", "silent"))
    found = compare_results(right, silent, BootstrapSettings(resamples=64, confidence=0.5), keeps=["push"])
    one = dataclasses.replace(found.suites["system"].metrics["emission.mean"], difference=-1.0, p_holm=0.01)
    assert verdict("system", "emission.mean", one, found.suites["system"]) == "differs"
    f1 = dataclasses.replace(found.suites["world"].metrics["speak.f1"], p_holm=0.01)
    assert verdict("world", "speak.f1", f1, found.suites["world"]) == "worse"
    assert verdict("world", "speak.f1", dataclasses.replace(f1, p_holm=0.6), found.suites["world"]) == "no difference shown"
    assert "push: world/speak.f1" in found.keeps and "push: system/emission.mean" not in found.keeps


def test_names_that_are_unclear_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="two evaluations are called 'right'"):
        build(request(folders, models=[load_results("right", folders[name]) for name in ("right", "silent")]))
    with pytest.raises(InputError, match="--compare names 'other'"):
        build(request(folders, pairs=[("right", "other")]))


def test_distributions_by_hand() -> None:
    """Whole numbers have a bin each: 1, 1, 2 and 4 of one model, 2 and 2 of the other."""

    def item(model: str, values: list[float]) -> Item:
        return Item(suite="s", scenario_id=model, item="stream", task="t", mode="push", series={"x": values})

    found = distributions({"a": [item("1", [1, 1]), item("2", [2, 4, float("nan")])], "b": [item("1", [2, 2])]})["s/x"]
    assert found["edges"] == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert found["models"]["a"]["shares"] == [0.5, 0.25, 0.0, 0.25] and found["models"]["b"]["shares"] == [0, 1, 0, 0]
    assert (found["models"]["a"]["count"], found["models"]["a"]["p50"], found["models"]["a"]["max"]) == (4, 1.5, 4)


def test_best_worst_and_typical_scenarios() -> None:
    """Errors 0 to 8, less is better: worst 8 and 7, best 0 and 1, typical around 4."""

    def aggregate(items: list[Item]) -> Metrics:
        return {"error": sum(item.values["error"] for item in items) / len(items)}

    suite = Suite(
        name="s", title="S", modes=("push",), main="error", score=lambda pairs, judge: [], aggregate=aggregate,  # type: ignore[arg-type]
        higher_is_better={"err*": False},
    )  # fmt: skip
    items = [Item(suite="s", scenario_id=f"s{n}", item="q", task="t", mode="push", values={"error": float(n)}) for n in range(9)]
    assert not is_higher_better(suite, "error") and is_higher_better(suite, "other")
    assert choose(suite, items, 6) == [
        ("s8", "worst", 8.0), ("s7", "worst", 7.0), ("s0", "best", 0.0), ("s1", "best", 1.0), ("s3", "typical", 3.0),
        ("s4", "typical", 4.0),
    ]  # fmt: skip
    assert len(choose(suite, items, 20)) == 9
