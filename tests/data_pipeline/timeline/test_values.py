"""Timelines as JSON."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given

from data_pipeline.timeline.normalise import normalise
from data_pipeline.timeline.timeline import GivenQuestion, Segment, Timeline
from data_pipeline.timeline.values import content_hash, read_timelines, timeline_from_dict, timeline_to_dict, write_timelines
from model.errors import InputError
from tests.data_pipeline.timeline.strategies import rough_timelines

SEGMENT = Segment(begin=1, end=2.5, text="球出现", entities=("ball",))
ASKED = GivenQuestion(text="q", answer="a", evidence=(0.0, 1.0), choices=("a", "b"))
TIMELINE = Timeline(id="v", duration=9, segments=(SEGMENT,), questions=(ASKED,), meta={"seed": 3})


@given(rough_timelines().map(normalise))
def test_round_trip(timeline: Timeline) -> None:
    values = json.loads(json.dumps(timeline_to_dict(timeline)))
    assert timeline_from_dict(values) == timeline
    assert content_hash(timeline_from_dict(values)) == content_hash(timeline)


def test_digest_is_stable_and_sees_every_field() -> None:
    assert content_hash(TIMELINE) == "52873b846b8c8d24483a1fe42be2c4126a5556e69f59330d493a1cefda4fd1ff"
    assert content_hash(dataclasses.replace(TIMELINE, duration=9.0)) == content_hash(TIMELINE)
    other = {
        "id": "w", "duration": 8.0, "segments": (), "questions": (), "video": "v.mp4", "language": "zh", "source": "s",
        "license": "l", "split_key": "k", "meta": {"seed": 4},
    }  # fmt: skip
    assert set(other) == {f.name for f in dataclasses.fields(Timeline)}
    digests = {content_hash(dataclasses.replace(TIMELINE, **{k: v})) for k, v in other.items()}  # type: ignore[arg-type]
    assert len(digests | {content_hash(TIMELINE)}) == len(other) + 1


def test_file_round_trip(tmp_path: Path) -> None:
    many = [dataclasses.replace(TIMELINE, id=str(n)) for n in range(5)]
    assert write_timelines(tmp_path / "new" / "t.jsonl", many) == 5
    assert list(read_timelines(tmp_path / "new" / "t.jsonl")) == many


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    target = tmp_path / "t.jsonl"
    write_timelines(target, [TIMELINE])
    before = target.read_bytes()
    bad = dataclasses.replace(TIMELINE, meta={"x": float("nan")})
    with pytest.raises(InputError, match="'v' cannot be stored as JSON"):
        write_timelines(target, [TIMELINE, bad])
    assert target.read_bytes() == before and list(tmp_path.iterdir()) == [target]
    with pytest.raises(InputError, match="is a folder"):
        write_timelines(tmp_path, [TIMELINE])


def test_reading_streams(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(json.dumps(timeline_to_dict(TIMELINE)) + "\n\nnot json\n")
    found = read_timelines(path)
    assert next(found) == TIMELINE
    with pytest.raises(InputError, match=r"t\.jsonl line 3 is not JSON"):
        next(found)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "x line 1 is []; it must be an object"),
        ({"id": "v"}, "x line 1 lacks the field duration"),
        ({"id": "v", "duration": 1, "lenght": 2}, "x line 1 has the unknown field 'lenght'"),
        ({"id": 3, "duration": 1}, "x line 1 field id is 3; it must be a text"),
        ({"id": "v", "duration": True}, "x line 1 field duration is True; it must be a number"),
        ({"id": "v", "duration": 10**400}, "it must be a finite number"),
        ({"id": "v", "duration": 1, "segments": {}}, "x line 1 field segments is {}; it must be a list"),
        ({"id": "v", "duration": 1, "segments": [3]}, "x line 1 field segments[0] is 3; it must be an object"),
        ({"id": "v", "duration": 1, "segments": [{"begin": 0}]}, "x line 1 field segments[0] lacks the field text"),
        ({"id": "v", "duration": 1, "segments": [{"begin": "0", "text": "a"}]}, "segments[0] field begin is '0'; it must"),
        ({"id": "v", "duration": 1, "segments": [{"begin": 0, "end": 2, "text": "a"}]}, "segments[0].end is 2"),
        ({"id": "v", "duration": 1, "questions": [{"text": "q", "answer": "a", "evidence": [1]}]}, "evidence is [1]; it must"),
        ({"id": "v", "duration": 1, "meta": []}, "x line 1 field meta is []; it must be an object"),
    ],
)  # fmt: skip
def test_strict(values: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        timeline_from_dict(values, "x line 1")
    assert message in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not exist; make them with `moss data timeline`"):
        list(read_timelines(tmp_path / "none.jsonl"))
