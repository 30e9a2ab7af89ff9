"""Lists of forbidden videos, by every way in which a list may name one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from data_pipeline.generator.gates.decontaminate import Forbidden, file_digest
from data_pipeline.timeline.timeline import Timeline
from model.errors import InputError

BYTES = b"not really a film"
DIGEST = hashlib.sha256(BYTES).hexdigest()


def forbidden(folder: Path, *lines: str) -> Forbidden:
    (folder / "list.txt").write_text("# of an evaluation set\n\n" + "\n".join(lines) + "\n")
    return Forbidden([str(folder / "list.txt")])


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    path = tmp_path / "set" / "a" / "film.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(BYTES)
    return Timeline(id="v7", duration=9.0, video=str(path), split_key="channel 3")


@pytest.mark.parametrize(
    "line",
    [
        "v7",
        "channel 3",
        "film.mp4",
        "film",
        "a/film.mp4",
        "./set/a/../a/film.mp4",
        '{"id": "v7"}',
        '{"id": "other", "video": "../set/a/film.mp4"}',
        '{"file": "a/film.mp4", "prompts": []}',
    ],
)
def test_by_name(tmp_path: Path, timeline: Timeline, line: str) -> None:
    entry = line.replace("../set", str(tmp_path / "set"))
    assert forbidden(tmp_path, "another", entry).reason(timeline) == "in a decontamination list by name"


@pytest.mark.parametrize("line", [DIGEST, DIGEST.upper(), f"{DIGEST}  elsewhere.mp4", f'{{"sha256": "{DIGEST}"}}'])
def test_by_content(tmp_path: Path, timeline: Timeline, line: str) -> None:
    assert forbidden(tmp_path, line).reason(timeline) == "in a decontamination list by content"
    assert file_digest(timeline.video) == DIGEST


@pytest.mark.parametrize("line", ["v", "film.mp", "channel", "m.mp4", "set", "a", "0" * 64, "#v7\nx"])
def test_others_stay(tmp_path: Path, timeline: Timeline, line: str) -> None:
    assert forbidden(tmp_path, line).reason(timeline) is None


def test_a_video_without_a_file_is_known_by_its_id_alone(tmp_path: Path) -> None:
    assert forbidden(tmp_path, DIGEST).reason(Timeline(id="seed 4", duration=3.0)) is None
    assert forbidden(tmp_path, "seed 4").reason(Timeline(id="seed 4", duration=3.0)) is not None


def test_several_lists(tmp_path: Path, timeline: Timeline) -> None:
    (tmp_path / "a.txt").write_text("x\n")
    (tmp_path / "b.txt").write_text("x\nv7\n")
    assert Forbidden([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]).reason(timeline)
    assert Forbidden([]).reason(timeline) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no video"),
        (b"# nothing\n\n", "names no video"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"v1\n{broken\n", "line 2 is no JSON"),
        (b'{"prompt": 3}\n', "line 1 names no video"),
    ],
)
def test_lists_that_would_protect_nothing(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(InputError, match=message):
        Forbidden([str(tmp_path / "list")])


def test_a_list_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        Forbidden([str(tmp_path / "none.txt")])
