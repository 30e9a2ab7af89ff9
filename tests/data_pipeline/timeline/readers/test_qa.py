"""Questions with evidence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_pipeline.timeline.timeline import GivenQuestion
from model.errors import InputError
from tests.data_pipeline.timeline.readers.helpers import read, write


def of(tmp_path: Path, **row: Any) -> GivenQuestion:
    values = {"video": "v1", "duration": 60, "question": "who?", "answer": "Ann", **row}
    (timeline,) = read("qa", write(tmp_path / "a.json", [{k: v for k, v in values.items() if v is not None}]))
    return timeline.questions[0]


@pytest.mark.parametrize(
    ("row", "evidence"),
    [
        ({}, None),
        ({"evidence": [3, 5]}, (3.0, 5.0)),
        ({"evidence": [[3, 5], [9, 12.5]]}, (3.0, 12.5)),
        ({"relevant_windows": [[3, 5]]}, (3.0, 5.0)),
        ({"evidence": {"start": 3, "end": 5}}, (3.0, 5.0)),
        ({"start": "0:03", "end": "0:05"}, (3.0, 5.0)),
        ({"time_reference": "00:03-00:05"}, (3.0, 5.0)),
        ({"evidence": "[3.5, 5.0]"}, (3.5, 5.0)),
        ({"time_stamp": "00:00:30"}, (30.0, 30.0)),
        ({"evidence": []}, None),
        ({"evidence": [59, 60.4]}, (59.0, 60.0)),
    ],
)
def test_evidence(tmp_path: Path, row: dict[str, Any], evidence: Any) -> None:
    assert of(tmp_path, **row).evidence == evidence


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"choices": ["Ann", "Bob"], "answer": 1}, "Bob"),
        ({"choices": ["Ann", "Bob"], "answer": "1"}, "Bob"),
        ({"options": ["A. Ann", "B. Bob"], "answer": "B"}, "Bob"),
        ({"options": {"A": "Ann", "B": "Bob"}, "answer": "(B)"}, "Bob"),
        ({"candidates": ["Ann", "Bob"], "answer": "Bob"}, "Bob"),
        ({"a0": "Ann", "a1": "Bob", "answer": 1}, "Bob"),
        ({"choices": ["2", "1"], "answer": "2"}, "2"),
        ({"answer": ["Bob", "Robert"]}, "Bob"),
        ({"answer": 3}, "3"),
        ({"answer": "A"}, "A"),
        ({"answer": None, "ground_truth": "Bob"}, "Bob"),
    ],
)
def test_answers(tmp_path: Path, row: dict[str, Any], answer: str) -> None:
    assert of(tmp_path, **row).answer == answer


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": None}, "a.json row 1 lacks the field question"),
        ({"answer": None}, "a.json row 1 lacks the field answer"),
        ({"answer": {}, "a": {"x": 1}}, "row 1 field a is {'x': 1}; it must be a text"),
        ({"choices": ["Ann"], "answer": 4}, "row 1 field answer is 4; it must be one of the 1 choices, counted from 0"),
        ({"choices": ["Ann"], "answer": "C"}, "row 1 field answer is 'C'; it must be one of the choices A"),
        ({"evidence": [5, 3]}, "row 1 field evidence is 3.0; it must not lie before the beginning, 5 s"),
        ({"evidence": [5]}, "row 1 field evidence is [5]; it must be a list of two times"),
        ({"evidence": "early"}, "row 1 field evidence is 'early'; it must be seconds"),
        ({"evidence": [70, 80]}, "with evidence from 70 to 80 s, but lasts 60 s"),
    ],
)
def test_faults(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        of(tmp_path, **row)
    assert message in str(caught.value)


def test_by_video_and_gathered(tmp_path: Path) -> None:
    asked = {"question": "who?", "answer": "Ann", "type": "person", "evidence": [1, 2]}
    nested = read("qa", write(tmp_path / "a.json", {"v1": {"duration": 9, "qas": [asked, {**asked, "question": "and?"}]}}))
    flat = read("qa", write(tmp_path / "b.jsonl", [{"video": v, "duration": 9, **asked} for v in ("v1", "v2", "v1")]))
    assert [len(t.questions) for t in nested] == [2]
    assert [(t.id, len(t.questions)) for t in flat] == [("v1", 2), ("v2", 1)]
    assert nested[0].questions[0].kind == "person"
    assert nested[0].until(1.5).questions == () and len(nested[0].until(2.0).questions) == 2
