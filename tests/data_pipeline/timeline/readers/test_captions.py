"""Dense captions in the shapes that they come in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_pipeline.timeline.timeline import Timeline
from model.errors import InputError
from tests.data_pipeline.helpers import grey_levels, make_video
from tests.data_pipeline.timeline.readers.helpers import read, told, write

TWO = [("event", 0.0, 2.5, "a dog runs"), ("event", 2.0, 4.0, "it stops")]
ROWS = [{"start": 0, "end": 2.5, "caption": "a dog runs"}, {"start": 2, "end": 4, "caption": "it stops"}]
FLAT = [{"video": "v1", "duration": 5, **row} for row in ROWS]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"v1": {"duration": 5, "timestamps": [[0, 2.5], [2, 4]], "sentences": ["a dog runs", " it stops "]}}),
        ("a.json", [{"video": "v1.mp4", "duration": 5, "timestamps": [[0, 2.5], [2, 4]],
                     "captions": ["a dog runs", "it stops"]}]),
        ("a.json", {"video_id": "v1", "duration": 5, "segments": ROWS}),
        ("a.json", {"database": {"v1": {"duration": "5.0", "annotations": [
            {"segment": [0, 2.5], "sentence": "a dog runs"}, {"segment": [2, 4], "sentence": "it stops"}]}}}),
        ("a.json", {"videos": [{"vid": "v1", "length": 5, "dense_captions": [
            {"timestamp": ["00:00", "00:02.5"], "text": "a dog runs"},
            {"timestamp": ["0:02", "0:00:04"], "text": "it stops"}]}]}),
        ("a.jsonl", [{"id": "v1", "seconds": 5, "captions": ROWS}]),
        ("a.json", FLAT),
        ("a.jsonl", FLAT),
        ("a.csv", "video,duration,begin,end,caption\nv1,5,0,2.5,a dog runs\nv1,5,2,4,it stops\n"),
    ],
)  # fmt: skip
def test_shapes(tmp_path: Path, name: str, content: Any) -> None:
    (timeline,) = read("captions", write(tmp_path / name, content))
    assert (timeline.id, timeline.duration, told(timeline)) == ("v1", 5.0, TWO)
    assert [s.known_from for s in timeline.segments] == [2.5, 4.0]
    assert timeline.source == "a"


def test_a_list_by_video(tmp_path: Path) -> None:
    found = read("captions", write(tmp_path / "a.json", {"v1": ROWS, "v2": ROWS[:1]}), last_end=True)
    assert [(t.id, t.duration, len(t.segments)) for t in found] == [("v1", 4.0, 2), ("v2", 2.5, 1)]


def test_a_list_without_videos_is_about_one_named_like_the_file(tmp_path: Path) -> None:
    (timeline,) = read("captions", write(tmp_path / "street.json", ROWS), last_end=True)
    assert timeline.id == "street" and told(timeline) == TWO


def hierarchy() -> dict[str, Any]:
    return {
        "video": "v1.mp4", "duration": 20, "caption": "a day of a dog", "license": "CC0", "dataset": "dogs", "lang": "english",
        "events": [
            {"start": 0, "end": 9, "caption": "it plays", "entities": ["dog", "ball"],
             "actions": [{"start": 1, "end": 2, "caption": "it jumps"}, {"start": 3, "end": 4, "caption": "it barks"}]},
            {"start": 9, "end": 20, "caption": "it sleeps"},
        ],
    }  # fmt: skip


def test_hierarchy(tmp_path: Path) -> None:
    (timeline,) = read("captions", write(tmp_path / "a.json", [hierarchy()]))
    assert told(timeline) == [
        ("video", 0.0, 20.0, "a day of a dog"),
        ("event", 0.0, 9.0, "it plays"),
        ("action", 1.0, 2.0, "it jumps"),
        ("action", 3.0, 4.0, "it barks"),
        ("event", 9.0, 20.0, "it sleeps"),
    ]
    assert (timeline.license, timeline.source, timeline.language) == ("CC0", "dogs", "en")
    assert timeline.segments[1].entities == ("dog", "ball")
    assert timeline.until(8.0).segments == tuple(s for s in timeline.until(8.0).segments if s.level == "action")


@pytest.mark.parametrize(("evident", "known"), [("begin", 2.0), ("middle", 3.0), ("end", 4.0)])
def test_evident(tmp_path: Path, evident: str, known: float) -> None:
    (timeline,) = read("captions", write(tmp_path / "a.json", FLAT), evident=evident)
    assert timeline.segments[1].known_from == known


def test_duration_of_the_file_and_options(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    (media / "v1.mp4").write_bytes(make_video(grey_levels(10)))
    rows = [{"video": "v1", "channel": "c7", "captions": [{"start": 0, "end": 0.3, "caption": "grey"}]}]
    path = write(tmp_path / "a.jsonl", rows)
    (timeline,) = read("captions", path, media_root=media, license="CC0", source="mine", language="zh", split_key="Channel")
    assert timeline.video == str(media / "v1.mp4") and 0 < timeline.duration < 5
    assert (timeline.license, timeline.source, timeline.language, timeline.split_key) == ("CC0", "mine", "zh", "c7")
    with pytest.raises(InputError, match=r"a\.jsonl row 1 lacks the field duration, and no video file tells it"):
        read("captions", path, media_root=media, probe=False)


def test_rounded_ends_stop_at_the_video(tmp_path: Path) -> None:
    (timeline,) = read("captions", write(tmp_path / "a.json", [{**FLAT[1], "duration": 3.6}]))
    assert timeline.segments[0].end == 3.6


def faults(path: Path) -> tuple[list[Timeline], list[str]]:
    found: list[str] = []
    return read("captions", path, on_fault=found.append), found


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"start": "soon"}, "a.jsonl row 2 captions[0] field start is 'soon'; it must be seconds, such as 12.5 or 1:02.5"),
        ({"start": True}, "captions[0] field start is True; it must be seconds"),
        ({"start": float("nan")}, "captions[0] field start is nan; it must be seconds"),
        ({"start": -1}, "captions[0] field start is -1.0; it must not be negative"),
        ({"start": 9}, "captions[0] field end is 1.0; it must not lie before the beginning, 9 s"),
        ({"start": None}, "captions[0] lacks the field begin (or start, start_time, start_sec); add it"),
        ({"end": None}, "captions[0] lacks the field end (or stop, end_time); add it"),
        ({"caption": "  "}, "captions[0] lacks the field caption"),
        ({"caption": {"a": 1}}, "captions[0] field caption is {'a': 1}; it must be a text"),
    ],
)
def test_a_bad_caption_costs_itself_alone(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    good = {"start": 0, "end": 1, "caption": "a dog runs"}
    rows = [{"id": n, "duration": 5, "captions": [good]} for n in "ab"]
    rows[1]["captions"] = [{**good, **row}, good]
    path = write(tmp_path / "a.jsonl", rows)
    found, said = faults(path)
    assert [len(t.segments) for t in found] == [1, 1]
    assert len(said) == 1 and message in said[0]
    with pytest.raises(InputError) as caught:
        read("captions", path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"duration": 0}, "row 2 field duration is 0; it must be a positive number of seconds"),
        ({"duration": "?"}, "row 2 field duration is '?'"),
        ({"duration": 1.5}, "row 2 has a segment, 'a dog runs', from 0 to 3 s, but lasts 1.5 s; correct one of them"),
        ({"captions": []}, "row 2"),
        ({"captions": "a dog"}, "row 2 field captions is 'a dog'; it must be a list of objects"),
        ({"captions": ["a dog"]}, "row 2 field captions[0] is 'a dog'; it must be an object"),
        ({"timestamps": [[0, 1]], "sentences": ["a", "b"]}, "row 2 has 1 timestamps and 2 sentences; give one text for each"),
        ({"timestamps": [[0, 1]], "captions": None}, "row 2 lacks the field sentences"),
        ({"id": "v0"}, "row 2 is a second row of video 'v0'"),
        ({"id": ["v0"], "video": {}}, "row 2 is a second row of video 'v0'"),
    ],
)
def test_a_bad_video_costs_itself_alone(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    rows = [{"id": f"v{n}", "duration": 5, "captions": [{"start": 0, "end": 3, "caption": "a dog runs"}]} for n in range(3)]
    rows[1] |= row
    found, said = faults(write(tmp_path / "a.jsonl", rows))
    assert [t.id for t in found] == ["v0", "v2"]
    assert said and all(message in s for s in said)


def test_broken_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": "v0", "duration": 5, "captions": [{"start": 0, "end": 3, "caption": "x"}]}\n{"id"\n\xff\n[1]\n')
    found, said = faults(path)
    assert len(found) == 1
    assert ["line 2" in said[0], "line 3" in said[1], "row 4 is '[1]'; it must be an object" in said[2]] == [True] * 3


def test_nothing_usable(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no video that can be used"):
        faults(write(tmp_path / "a.json", [{"x": 1}]))
    with pytest.raises(InputError, match=r"none\.json does not exist"):
        read("captions", tmp_path / "none.json")
    with pytest.raises(InputError, match="is not JSON"):
        read("captions", write(tmp_path / "b.json", "[1,"))
    with pytest.raises(InputError, match="'dense'; use one of captions"):
        read("dense", tmp_path / "a.json")
