"""Annotation files, videos and templates: what importers accept, and how they say what they do not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from inference.evaluation.schema import Question, Scenario
from inference.evaluation.suites.importing import Videos, load_templates, make_manifest, read_list, seconds_of, take
from inference.evaluation.suites.suite import ImportOptions
from model.errors import InputError
from tests.inference.clips import write_clip


def test_times() -> None:
    found = [seconds_of(value, "x") for value in ("00:03:10", "03:10", "7.5", 12, 3.25)]
    assert found == [190.0, 190.0, 7.5, 12.0, 3.25]
    for wrong in ("soon", "1:2:3:4", -1, None, True, float("nan")):
        with pytest.raises(InputError, match="must be HH:MM:SS or seconds"):
            seconds_of(wrong, "x")


@pytest.mark.parametrize(
    ("entry", "name", "kind", "message"),
    [
        ([1], "a", str, "it must be an object with the field a"),
        ({}, "a", str, "x has no field a"),
        ({"a": 1}, "a", str, "a is 1; it must be of type str"),
        ({"a": True}, "a", int, "a is True; it must be of type int"),
        ({"a": float("inf")}, "a", float, "it must be finite"),
    ],
)
def test_fields_are_checked(entry: object, name: str, kind: type, message: str) -> None:
    with pytest.raises(InputError, match=message):
        take(entry, name, kind, "x")


def test_annotations_must_be_a_list(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_text("[1,")
    (tmp_path / "c.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    for name, message in (("a.json", "holds no list"), ("b.json", "cannot be read as JSON"), ("none.json", "cannot be read")):
        with pytest.raises(InputError, match=message):
            read_list(tmp_path / name)
    assert read_list(tmp_path / "c.jsonl") == [{"a": 1}, {"a": 2}]


def test_videos_are_found_by_what_annotations_call_them(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "real" / "sample_1.mp4", [10] * 6, fps=2)  # 3 s
    for name in ("a/x.mp4", "b/x.mp4", "c.d.mkv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(clip.read_bytes())
    (tmp_path / "broken.mp4").write_bytes(clip.read_bytes()[:100])
    videos = Videos(tmp_path)
    assert videos.find("./videos/sample_1.mp4") == "real/sample_1.mp4" == videos.find("sample_1") == videos.find("sample_1.avi")
    assert videos.find("other/b/x.mp4") == "b/x.mp4" and videos.find("a/x.mp4") == "a/x.mp4" and videos.find("c.d") == "c.d.mkv"
    assert videos.find("nowhere.mp4") is None and videos.find("broken.mp4") is None and videos.find("../real") is None
    assert videos.missing == ["nowhere.mp4", "broken.mp4", "../real"]
    with pytest.raises(InputError, match=r"video x\.mp4 may be .*a/x\.mp4 and .*b/x\.mp4"):
        videos.find("x.mp4")
    found = "real/sample_1.mp4"
    assert videos.duration(found) == pytest.approx(3.0)
    assert videos.frames(found, 1.0) == 3  # at 0, 1 and 2 s: at 3 s it has ended
    assert videos.frames(found, 2.0, begin=1.0) == 4 and videos.frames(found, 1.0, until=1.5) == 2
    assert videos.frames(found, 1.0, begin=5.0) == 0
    with pytest.raises(InputError, match="is no folder"):
        Videos(tmp_path / "none")


def test_templates_of_a_file_take_the_places_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    defaults = {"choice": "{question} {options}", "yes_no": "{question}"}
    path.write_text("choice: 'Q: {question}'\n")
    assert load_templates(defaults, path) == {"choice": "Q: {question}", "yes_no": "{question}"}
    assert load_templates(defaults, None) == defaults
    for content, message in (
        ("other: x", "has a template 'other'; this suite has choice, yes_no"),
        ("choice: 3", "choice is 3; it must be a text"),
        ("yes_no: '{options}'", "uses the field 'options'; known are question"),
        ("yes_no: '{'", "is no template"),
        ("- x", "holds no templates by name"),
        ("[", "cannot be read"),
    ):
        path.write_text(content)
        with pytest.raises(InputError, match=message):
            load_templates(defaults, path)


def test_a_manifest_says_what_was_used(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    videos = Videos(tmp_path)
    videos.find("gone.mp4")
    question = Question(text="?", answer="x", kind="k")
    scenario = Scenario(id="s", video="v.mp4", fps=1.0, num_frames=1, questions=[question, question])
    options = ImportOptions(videos=tmp_path, release="v1", max_frames=64)
    arguments = ("ovobench", options, [tmp_path / "a.json"], {"b": "x", "a": "y"})
    found = make_manifest(*arguments, [scenario], videos, license="CC", source="https://example.org")
    assert found.annotations == {"a.json": hashlib.sha256(b"[]").hexdigest()} and found.items == 2 and found.scenarios == 1
    assert found.missing_videos == ["gone.mp4"] and found.max_frames == 64 and found.release == "v1"
    assert found.prompts_sha256 == hashlib.sha256(b'{"a": "y", "b": "x"}').hexdigest()
    with pytest.raises(InputError, match=r"none of the 1 videos was found \(gone\.mp4"):
        make_manifest(*arguments, [], videos, license="CC", source="")
