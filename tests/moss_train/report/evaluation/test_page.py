"""The page of evaluations: what stands on it, that it needs nothing from outside, and its drawings."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from inference.evaluation.reporting.content import ReportRequest, build
from inference.evaluation.results import baselines_in, load_by_id, load_results
from inference.evaluation.statistics.bootstrap import BootstrapSettings
from moss_train.report.evaluation.bars import difference_bar, histogram, interval_bar, number, p_value, scale
from moss_train.report.evaluation.page import page_values, write_page
from moss_train.report.evaluation.tables import difference_rows, facts, suite_rows
from moss_train.report.evaluation.thumbnails import shown_frames, thumbnails
from moss_train.report.evaluation.timeline import draw
from tests.inference.evaluation.folders import write_evaluations

VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """Checks that tags close in order, and keeps what refers to something else."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "srcset")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folders = write_evaluations(tmp_path_factory.mktemp("evaluations"))
    models = [load_results(name, folders[name]) for name in ("right", "silent")]
    return build(
        ReportRequest(
            models=models,
            baselines=baselines_in(folders["right"]),
            scenarios=load_by_id([folders["scenarios"]]),
            statistics=BootstrapSettings(resamples=40),
            keeps=["offline"],
        )
    )


def test_the_page_is_whole_and_needs_nothing_from_outside(content: dict[str, Any], tmp_path: Path) -> None:
    numbers = write_page(tmp_path / "report.html", content, title="A & B", intro="<b>intro</b>", commands=["moss eval more"])
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert not page.open and "script" not in page.tags and "link" not in page.tags
    assert page.references and all(ref.startswith(("#", "data:image/jpeg;base64,")) for ref in page.references)
    assert not re.findall(r"url\(|@import", text)
    inside = {ref[1:] for ref in page.references if ref.startswith("#")}
    assert inside <= set(re.findall(r'id="([^"]+)"', text))
    shown = " ".join("".join(page.text).split())
    for words in (
        "A & B", "<b>intro</b>", "class_prior (baseline)", "silent against right", "Not shown", "offline: world/qa.all",
        "the video ends at 3 s", "Say <what> you see.", "no fence → a fence", "moss eval 'x y.jsonl'", "moss eval more",
        "visual_tokens", "tokens_per_frame", "McNemar", "alert", "scenarios.jsonl",
        "Manifest of world", "prompts_sha256ab12", "missing_videos1", "max_frames4", "made up",
    ):  # fmt: skip
        assert words in shown, words
    assert json.loads(numbers.read_text(encoding="utf-8")) == {"title": "A & B", **content}


def test_tasks_can_be_picked_without_a_script(content: dict[str, Any]) -> None:
    values = page_values(content, "t")
    assert {"narration", "alert", "event", "colour"} <= set(values["tasks"])
    for line, drawn in zip(content["timelines"], values["timelines"], strict=True):
        assert drawn["classes"].split() == [f"task{values['tasks'].index(task)}" for task in line["tasks"]]


def test_a_page_without_timelines_comparisons_and_suites_says_so(content: dict[str, Any], tmp_path: Path) -> None:
    empty = content | {"suites": [], "comparisons": [], "timelines": [], "distributions": {}, "notes": ["No timelines: none."]}
    write_page(tmp_path / "report.html", empty, title="t")
    page = Page()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "No suite has its main metric." in "".join(page.text) and "No timelines: none." in "".join(page.text)


def test_published_figures_stand_beside_ours(content: dict[str, Any], tmp_path: Path) -> None:
    table = {
        "title": "Offline",
        "columns": ["benchmark", "ours", "published"],
        "rows": [["POPE", "88.0", "88.17"]],
        "notes": ["n"],
    }
    write_page(tmp_path / "report.html", content | {"published": [table]}, title="t")
    assert "<td>POPE</td><td>88.0</td><td>88.17</td>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def metric(estimate: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"estimate": estimate, "low": low, "high": high, "method": "bca", "note": ""}


def test_official_and_strict_parsers_stand_side_by_side() -> None:
    metrics = {
        "ocr.accuracy_official": metric(0.5, 0.4, 0.6),
        "ocr.accuracy_strict": metric(0.25, 0.1, 0.4),
        "speed": metric(2.0),
    }
    suite = {
        "metrics": list(metrics),
        "lower_is_better": ["speed"],
        "main": "ocr.accuracy_strict",
        "models": {"m": {"metrics": metrics}},
    }
    single, double = suite_rows(suite, ["m"], {"m": 0})
    assert [row.label for row in single] == ["speed"] and single[0].lower and single[0].cells[0].interval == "no interval"
    (row,) = double
    assert row.label == "ocr.accuracy" and row.main
    assert (row.cells[0].text, row.strict[0].text, row.strict[0].interval) == ("0.500", "0.250", "0.100 … 0.400")


def test_figures_and_scales() -> None:
    assert [number(v) for v in (None, 0.12345, -0.0, 12.345, 705.0, 25856.0)] == [
        "–",
        "0.123",
        "0.000",
        "12.35",
        "705.0",
        "25,856",
    ]
    assert [p_value(v) for v in (None, 0.0005, 0.25)] == ["–", "<0.001", "0.250"]
    assert scale([metric(0.4, 0.3, 0.5)]) == (0.0, 1.0) and scale([metric(5.0, 4.0, 8.0), metric(-1.0)]) == (-1.0, 8.0)
    assert scale([]) == (0.0, 1.0) and scale([metric(-2.0)]) == (-2.0, 0.0)
    assert facts({"a": {"b": 1, "c": None}, "d": [], "e": [1, 2]}) == [("a.b", "1"), ("e", "1, 2")]


def test_bars_by_hand() -> None:
    """A bar is 110 wide with 4 at each edge: 0.5 lies at 4 + 0.5 * 102 = 55, a difference of 0.5 on +-1 at 80.5."""
    svg = interval_bar(metric(0.5, 0.25, 0.75), (0.0, 1.0))
    assert 'cx="55.0"' in svg and 'x1="29.5" x2="80.5"' in svg
    assert interval_bar({"estimate": None}, (0.0, 1.0)) == ""
    svg = difference_bar({"difference": 0.5, "low": 0.0, "high": 1.0}, 1.0, "better")
    assert 'class="dot-better" cx="80.5"' in svg and 'x1="55.0" x2="106.0"' in svg
    assert 'class="dot-same"' in difference_bar({"difference": 0.0, "low": None, "high": None}, 1.0, "no difference shown")
    svg = histogram([0.0, 1.0, 2.0], {"m": {"shares": [1.0, 0.5]}}, {"m": 0})
    assert svg.count("<polygon") == 1 and "6.0,94.0 6.0,8.0 170.0,8.0 170.0,51.0 334.0,51.0 334.0,94.0" in svg


def line(**changed: Any) -> dict[str, Any]:
    found = {
        "id": "s", "fps": 1.0, "num_frames": 10, "seconds": 10.0, "begin": 0.0, "video": "", "frames": [], "prompts": [],
        "changes": [], "polls": [], "streams": [], "spans": [{"a": 5.0, "b": 5.0, "text": "now", "kind": "event"}],
    }  # fmt: skip
    return found | changed


def test_a_timeline_by_hand() -> None:
    """1100 wide, rows from 120 to 1086: 96.6 a second, so second 5 lies at 603."""
    said = {"t": 5.0, "end": 6.0, "text": "no <w", "verdict": "other", "span": 0}
    stream = {"model": "m", "utterances": [said], "hit": [0], "interrupted": [2.0], "dropped": [3.0], "silent_frames": 9}
    silent = {"model": "n", "utterances": [], "hit": [], "interrupted": [], "dropped": [], "silent_frames": 10}
    reply = {"t": 4.0, "text": "Yes, now"}
    poll = {"models": {"m": {"replies": [{"t": 3.0, "text": "No"}, reply], "stopped": True, "final": "it is"}}}
    svg = draw(line(streams=[stream, silent], polls=[poll]), [], {"m": 0, "n": 1})
    assert '<rect class="truth" x="603.0"' in svg and '<rect class="other" x="603.0"' in svg
    assert svg.count('class="missed"') == 1 and svg.count('class="silence"') == 2 and svg.count('class="cut"') == 1
    assert "no &lt;w" in svg and svg.count('class="drop"') == 1
    assert svg.count('fill="none" stroke="#3465a4"') == 1 and svg.count('fill="#3465a4" stroke="#3465a4"') == 1 and "it is" in svg


def test_texts_without_room_are_left_out_of_the_drawing() -> None:
    many = [{"t": 5.0, "end": 5.1, "text": f"utterance number {n} of many", "verdict": "false", "span": None} for n in range(30)]
    stream = {"model": "m", "utterances": many, "hit": [0], "interrupted": [], "dropped": [], "silent_frames": 0}
    svg = draw(line(spans=[], streams=[stream]), [], {"m": 0})
    assert svg.count('class="false"') == 30 and svg.count('class="said"') == 3


def test_thumbnails_of_image_files(tmp_path: Path) -> None:
    for index in range(3):
        Image.new("RGB", (40, 20), (80 * index, 0, 0)).save(tmp_path / f"{index}.png")
    found, trouble = thumbnails(
        line(num_frames=3, frames=[str(tmp_path / f"{index}.png") for index in range(3)]), most=2, width=10
    )
    assert [index for index, _ in found] == [0, 1] and trouble == ""
    content = base64.b64decode(found[0][1].partition(",")[2])
    (tmp_path / "back.jpg").write_bytes(content)
    assert Image.open(tmp_path / "back.jpg").size == (10, 5)
    drawn = draw(line(num_frames=3), found, {})
    assert drawn.count("<image") == 2 and 'height="36.0"' in drawn  # 72 wide, half as high
    assert thumbnails(line(video=str(tmp_path / "none.mp4")))[1].startswith("no frames: ")
    assert shown_frames(5, 16) == [0, 1, 2, 3, 4] and shown_frames(100, 4) == [0, 25, 50, 75]


def test_rows_of_differences(content: dict[str, Any]) -> None:
    table = next(one for one in difference_rows(content["comparisons"][0]) if one["suite"] == "world")
    row = next(row for row in table["rows"] if row["name"] == "speak.f1")
    assert (row["a"], row["b"], row["difference"], row["verdict"]) == ("1.000", "0.000", "-1.000", "no difference shown")
    assert not [one for one in table["rows"] if one["name"] == "speak.onset_error_median"]  # the silent run has none
