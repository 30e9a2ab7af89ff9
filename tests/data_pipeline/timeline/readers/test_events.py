"""Annotated events, actions and narrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_pipeline.timeline.normalise import normalise
from model.errors import InputError
from tests.data_pipeline.timeline.readers.helpers import read, told, write


@pytest.mark.parametrize(
    "content",
    [
        {"version": "1.3", "taxonomy": [], "database": {"v1": {"duration": 9, "subset": "training", "url": "x", "annotations": [
            {"segment": [1, 4.5], "label": "Washing dishes"}]}}},
        {"database": {"v1": {"class": "Dishes", "duration": 9, "start": 0, "end": 9, "annotation": [
            {"id": "25", "segment": [1.0, 4.5], "label": "Washing dishes"}]}}},
        [{"video": "v1.mp4", "duration": 9, "actions": [{"start": 1, "end": 4.5, "action": "Washing dishes"}]}],
    ],
)  # fmt: skip
def test_labelled_stretches(tmp_path: Path, content: Any) -> None:
    (timeline,) = read("events", write(tmp_path / "a.json", content))
    assert (timeline.id, told(timeline)) == ("v1", [("action", 1.0, 4.5, "Washing dishes")])
    assert timeline.segments[0].known_from == 4.5


@pytest.mark.parametrize("wrapped", [True, False])
def test_narrations_with_a_single_time(tmp_path: Path, wrapped: bool) -> None:
    narrated = {"narrations": [{"timestamp_sec": 3.25, "narration_text": "#C C opens a door", "timestamp_frame": 97}],
                "summaries": [{"start_sec": 0, "end_sec": 8, "summary_text": "C walks home"}]}  # fmt: skip
    video = {"duration_sec": 20.0, "narration_pass_1": {"narrations": []}, "narration_pass_2": narrated}
    content = {"videos": {"uid": video}} if wrapped else {"uid": video}
    (timeline,) = read("events", write(tmp_path / "a.json", content))
    assert told(timeline) == [("action", 0.0, 8.0, "C walks home"), ("event", 3.25, 3.25, "#C C opens a door")]
    assert [s.known_from for s in timeline.segments] == [8.0, 3.25]


def test_a_table_with_states(tmp_path: Path) -> None:
    table = (
        "video,duration,begin,end,label,subject,value,salience,change\n"
        "v1,12,0,,,light,red,,\n"
        "v1,12,0:05,,the light turns green,light,green,0.5,\n"
        "v1,12,6,8,a bus leaves,,,,leave\n"
    )
    (timeline,) = read("events", write(tmp_path / "a.csv", table))
    clean = normalise(timeline)
    assert [(s.level, s.begin, s.end, s.text, s.value) for s in clean.segments] == [
        ("state", 0.0, 5.0, "light: red", "red"),
        ("state", 5.0, 12.0, "the light turns green", "green"),
        ("action", 6.0, 8.0, "a bus leaves", ""),
    ]
    assert clean.segments[1].salience == 0.5 and clean.segments[2].change == "leave"


def test_a_table_about_one_video(tmp_path: Path) -> None:
    (timeline,) = read(
        "events", write(tmp_path / "clip.csv", "begin,end,label\n0,2,jump\n"), last_end=True, evident="begin", level="event"
    )
    assert (timeline.id, told(timeline), timeline.segments[0].known_from) == ("clip", [("event", 0.0, 2.0, "jump")], 0.0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("x,2,jump,,", "a.csv row 1 field begin is 'x'; it must be seconds"),
        ("3,2,jump,,", "a.csv row 1 field end is 2.0; it must not lie before the beginning, 3 s"),
        ("1,2,,,", "a.csv row 1 lacks the field label (or text, narration_text, summary_text); add it"),
        ("1,2,jump,move,", "a.csv row 1 field change is 'move'; use one of appear"),
        ("1,2,jump,,5", "a.csv row 1 field salience is 5.0; it must lie within 0..1"),
    ],
)
def test_faults_name_the_row(tmp_path: Path, columns: str, message: str) -> None:
    path = write(tmp_path / "a.csv", f"begin,end,label,change,salience\n{columns}\n4,5,run,,\n")
    said: list[str] = []
    (timeline,) = read("events", path, on_fault=said.append, last_end=True)
    assert len(timeline.segments) == 1 and len(said) == 1 and message in said[0]
    with pytest.raises(InputError, match=r"a\.csv row 1"):
        read("events", path, last_end=True)
