"""Traces of any system are scored: the example of the documentation, word by word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.evaluation.items import load_items
from inference.evaluation.run_record import load_record
from moss_train.cli.main import main as moss

PAGE = Path(__file__).parents[4] / "docs" / "traces.md"


@pytest.fixture
def example(tmp_path: Path) -> list[str]:
    """The scenario and the trace that the page shows, and the arguments that score them."""
    scenario, trace = (block.split("```")[0] for block in PAGE.read_text(encoding="utf-8").split("```json\n")[1:])
    (tmp_path / "scenarios.jsonl").write_text(scenario)
    (tmp_path / "traces.jsonl").write_text(trace)
    return ["eval", "score", str(tmp_path / "traces.jsonl"), "--scenarios", str(tmp_path / "scenarios.jsonl")]


def test_the_documented_example(example: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert moss([*example, "--out", str(tmp_path / "out"), "--label", "theirs"]) == 0
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["speak"]["f1"] == scores["suites"]["world"]["speak.f1"] == 1.0
    # Arrived at 2.0 s, said at 2.3 s; latencies of the four frames are 0.2, 0.2, 0.3 and 0.2 s.
    system = scores["suites"]["system"]
    assert system["after_frame.p50"] == pytest.approx(0.3) and system["frame_latency.max"] == pytest.approx(0.3)
    assert system["accounting.violations"] == 0 and system["frames.processed"] == 4
    assert {item.item for item in load_items(tmp_path / "out" / "items.jsonl")} == {"stream", "span0"}
    assert load_record(tmp_path / "out").checkpoint == {"path": "theirs"}
    assert "speak.f1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("unknown", "a trace names scenario 'other', unknown to the scenario file"),
        ("twice", "scenario 'clip' has two traces of mode push; give one of them"),
        ("missing", "1 scenarios have no trace, the first is 'more'; run them, or leave them out with --partial"),
        ("empty", "holds no trace"),
    ],
)
def test_what_does_not_fit_is_one_sentence(
    example: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    traces, scenarios = Path(example[2]), Path(example[4])
    if change == "unknown":
        traces.write_text(traces.read_text().replace('"clip"', '"other"'))
        scenarios.write_text(scenarios.read_text() + scenarios.read_text().replace('"clip"', '"second"'))
        example.append("--partial")
    elif change == "twice":
        traces.write_text(2 * traces.read_text())
    elif change == "missing":
        scenarios.write_text(scenarios.read_text() + scenarios.read_text().replace('"clip"', '"more"'))
    else:
        traces.write_text("")
    assert moss([*example, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_what_is_missing_may_be_left_out(example: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scenarios = Path(example[4])
    scenarios.write_text(scenarios.read_text() + scenarios.read_text().replace('"clip"', '"more"'))
    assert moss([*example, "--out", str(tmp_path / "out"), "--partial"]) == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["counts"]["clips"] == 1
    assert 'left out: ["more"]' in capsys.readouterr().err
