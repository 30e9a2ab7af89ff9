"""The evaluation twin: what the schema of streaming evaluation reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.realtime.dialogue import Dialogue, UserTurn, Utterance
from data_pipeline.realtime.scenario import to_scenario
from inference.evaluation.storage import load_scenarios


def example() -> Dialogue:
    return Dialogue(
        id="d",
        frame_times=(0.0, 0.5, 1.0, 1.5),
        fps=2.0,
        users=(UserTurn(t=0.25, text="How many?", behaviour="count"),),
        utterances=(
            Utterance(t=0.5, text="one.", evidence=(0.0, 0.5), answers=0, kind="answer", tolerance=0.5),
            Utterance(t=1.5, text="two.", evidence=(1.0, 1.5), answers=0, corrects=0, kind="correction"),
        ),
        behaviours=("count", "correction"),
        source="made",
        license="CC0-1.0",
    )


def test_spans_prompts_and_corrections() -> None:
    line = to_scenario(example(), "0.mp4", 4)
    assert line["spans"] == [
        {"a": 0.5, "b": 1.0, "text": "one.", "kind": "answer", "prompt": 0},
        {"a": 1.5, "b": 1.5, "text": "two.", "kind": "correction", "prompt": 0},
    ]
    assert line["prompts"] == [{"t": 0.25, "text": "How many?"}]
    assert line["meta"]["spans"][1] == {"evidence": [1.0, 1.5], "corrects": 0} and "corrects" not in line["meta"]["spans"][0]
    assert line["meta"]["behaviours"] == ["count", "correction"] and line["meta"]["language"] == "en"
    assert to_scenario(example(), "0.mp4", 4, identity="e")["id"] == "e"


def test_the_reader_of_scenarios_takes_it(tmp_path: Path) -> None:
    line = to_scenario(example(), "0.mp4", 4, questions=[{"text": "What?", "answer": "a ball", "kind": "free"}])
    (tmp_path / "s.jsonl").write_text(json.dumps(line) + "\n")
    (scenario,) = load_scenarios(tmp_path / "s.jsonl")
    assert scenario.fps == 2.0 and scenario.num_frames == 4 and scenario.spans[1].prompt == 0
    assert scenario.prompts[0].t == pytest.approx(0.25) and scenario.questions[0].answer == "a ball"
