"""LLaVA's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data_pipeline.formats.helpers import import_file, save
from tests.data_pipeline.helpers import grey_levels, make_image, make_video


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "pictures" / name).write_bytes(make_image())
    (tmp_path / "pictures" / "c.mp4").write_bytes(make_video(grey_levels(4)))
    return tmp_path


def row(*texts: str, **fields: Any) -> dict[str, Any]:
    return {"conversations": [{"from": ("human", "gpt")[i % 2], "value": t} for i, t in enumerate(texts)], **fields}


def contents(data: Path, *rows: dict[str, Any]) -> list[list[str]]:
    kept, _ = import_file(save(data, list(rows)), media_root=data / "pictures")
    return [[m.content for m in a.sample.messages] for a in kept]


def test_one_file_or_several(data: Path) -> None:
    rows = [
        row("hello", "hi"),  # text rows may come first
        row("<image>\nWhat?", "A.", "And?", "B.", id="7", image="a.png"),
        row("<image> and <image>", "Two.", image=["a.png", "b.png"]),
        row("<video>\nWhat?", "C.", video="c.mp4"),
    ]
    kept, report = import_file(save(data, rows), media_root=data / "pictures")
    assert report.kept == 4 and [a.sample.kind for a in kept] == ["text", "image", "image", "video"]
    assert kept[1].sample.messages[0].content == "<|image|>\nWhat?" and kept[1].sample.meta == {"id": "7"}
    assert len(kept[1].sample.messages) == 4 and len(kept[2].sample.media) == 2


def test_media_without_a_marker_come_before_the_first_question(data: Path) -> None:
    assert contents(data, row("What?", "A.", image=["a.png", "b.png"])) == [["<|image|><|image|>\nWhat?", "A."]]
    assert contents(data, row("What?", "A.", video="c.mp4")) == [["<|video|>\nWhat?", "A."]]


def test_an_image_marker_stands_for_a_video_where_there_is_no_image(data: Path) -> None:
    assert contents(data, row("<image>\nWhat?", "A.", video="c.mp4")) == [["<|video|>\nWhat?", "A."]]
    assert contents(data, row("<image><video>", "A.", image="a.png", video="c.mp4")) == [["<|image|><|video|>", "A."]]


def test_an_answer_to_nothing_is_left_out(data: Path) -> None:
    rows = {"conversations": [{"from": "gpt", "value": "x"}, *row("<image>What?", "A.")["conversations"]], "image": "a.png"}
    assert contents(data, rows) == [["<|image|>What?", "A."]]
    plain = {"conversations": [{"role": "user", "content": "<image>"}, {"role": "assistant", "content": "A."}], "image": "a.png"}
    assert contents(data, plain) == [["<|image|>", "A."]]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row("<image>What?", "A.", image=["a.png", "b.png"]), "markers and media do not match"),
        (row("<image><image>", "A.", image="a.png"), "markers and media do not match"),
        (row("<image>", "A.", image={"path": "a.png"}), "media column cannot be read"),
        (row("<image>", "A.", image="gone.png"), "media file is missing"),
        ({"conversations": [{"from": "gpt", "value": "x"}], "image": "a.png"}, "roles do not alternate"),
        ({"image": "a.png"}, "no messages"),
    ],
)
def test_bad_rows_are_told(data: Path, bad: dict[str, Any], reason: str) -> None:
    kept, report = import_file(save(data, [row("<image>", "A.", image="a.png"), bad]), media_root=data / "pictures")
    assert len(kept) == 1 and dict(report.dropped) == {reason: 1}


def test_the_format_can_be_named(data: Path) -> None:
    source = save(data, [row("What?", "A.", image="a.png")])
    assert import_file(source, form="llava", media_root=data / "pictures")[0][0].sample.kind == "image"
    assert import_file(source, form="sharegpt")[0][0].sample.kind == "text"  # the column image is not of that format
