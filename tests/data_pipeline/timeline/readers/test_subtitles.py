"""Subtitles beside clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.timeline.changes import detect_changes
from model.errors import InputError
from tests.data_pipeline.helpers import grey_levels, make_video
from tests.data_pipeline.timeline.readers.helpers import read, told, write

SRT = "1\n00:00:00,000 --> 00:00:01,000\nHello\nthere.\n\n2\n00:00:01,500 --> 00:00:01,900\n<i>Bye.</i>\n"
VTT = "WEBVTT\n\n00:00.000 --> 00:01.000\n你好\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.mp4").write_bytes(make_video(grey_levels(16)))
    (tmp_path / "deep" / "b.mp4").write_bytes(make_video(grey_levels(16)))
    write(tmp_path / "a.srt", SRT)
    write(tmp_path / "a.zh-Hans.vtt", VTT)
    write(tmp_path / "deep" / "b.en.vtt", SRT.replace("1\n00", "WEBVTT\n\n00", 1).replace(",", "."))
    return tmp_path


def test_a_folder(folder: Path) -> None:
    first, second = read("subtitles", folder)
    assert told(first) == [("speech", 0.0, 1.0, "Hello there."), ("speech", 1.5, 1.9, "Bye.")]
    assert [s.known_from for s in first.segments] == [1.0, 1.9]
    assert (first.id, first.video, second.id, second.language) == ("a", str(folder / "a.mp4"), "deep/b", "en")
    assert first.duration == pytest.approx(2.0)
    assert detect_changes(first) == ()


def test_a_language(folder: Path) -> None:
    said: list[str] = []
    (timeline,) = read("subtitles", folder / "a.mp4", language="zh", on_fault=said.append)
    assert [s.text for s in timeline.segments] == ["你好"] and timeline.language == "zh"


def test_one_file_without_its_clip(folder: Path) -> None:
    (folder / "a.mp4").unlink()
    with pytest.raises(InputError, match=r"a\.srt lacks the field duration"):
        read("subtitles", folder / "a.srt")
    (timeline,) = read("subtitles", folder / "a.srt", last_end=True, evident="begin")
    assert timeline.duration == 1.9 and timeline.segments[1].known_from == 1.5


def test_a_bad_file_costs_itself_alone(folder: Path) -> None:
    write(folder / "deep" / "b.en.vtt", "WEBVTT\n")
    said: list[str] = []
    assert [t.id for t in read("subtitles", folder, on_fault=said.append)] == ["a"]
    assert len(said) == 1 and "b.en.vtt hold no cue" in said[0]


def test_no_subtitles(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no subtitles; they must be \.srt or \.vtt files named after their clips"):
        read("subtitles", tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read("subtitles", tmp_path / "a.srt")
