"""Importing share-GPT JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.formats.media_entries import media_entries, seconds
from data_pipeline.shards.annotations import read_annotations, write_annotations
from data_pipeline.shards.info import read_samples
from data_pipeline.shards.prepare import prepare
from model.errors import InputError
from tests.data_pipeline.formats.helpers import import_file, save
from tests.data_pipeline.helpers import grey_levels, make_image, make_video

REALTIME = "[RealTime QA]"


def row(user: str, assistant: str, **media: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}], **media}


def descriptor(path: str, times: list[Any], mode: str = REALTIME) -> list[str]:
    first = f"{mode}[INFO]{json.dumps({'video_path': path, 'time_info': times})}"
    return [first, *[f"{mode}[PLACEHOLDER]"] * (len(times) - 1)]


def realtime_row(times: list[Any], path: str = "clips/kettle.mp4", mode: str = REALTIME) -> dict[str, Any]:
    first, second = "<|silence|><|video|>" * 2, "<|video|>it boils<|silence|>" * (len(times) - 2)
    return {
        "messages": [
            {"role": "system", "content": "watch"},
            {"role": "user", "content": ""},
            {"role": "assistant", "content": first},
            {"role": "user", "content": "tell me when it boils"},
            {"role": "assistant", "content": second},
        ],
        "images": [],
        "videos": descriptor(path, times, mode),
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "kettle.mp4").write_bytes(make_video(grey_levels(10), rate=2))  # five seconds
    (tmp_path / "clips" / "kite.png").write_bytes(make_image())
    return tmp_path


def test_the_three_kinds_of_rows(data: Path) -> None:
    rows = [
        row("", "<image>A red kite.", images=["clips/kite.png"], videos=[]),
        row("<|video|>What boils?", "A kettle.", videos=["clips/kettle.mp4"]),
        realtime_row(["00:00", "00:01", "00:02", "00:03", "00:04"]),
        row("hello", "hi"),
    ]
    kept, report = import_file(save(data, rows))
    assert report.kept == 4 and not report.dropped
    assert [a.sample.kind for a in kept] == ["image", "video", "realtime", "text"]
    assert kept[0].sample.messages[1].content == "<|image|>A red kite."
    clip = kept[2].sample.media[0]
    assert clip.markers == "per_frame" and clip.frame_times == [0, 1, 2, 3, 4] and clip.num_frames == 10
    assert kept[2].sample.messages[0].role == "system"


def test_events_of_a_caption_stream(data: Path) -> None:
    times = [{"start": "00:00", "end": "00:01"}, {"start": "00:01", "end": "00:03"}, {"start": "00:03", "end": "00:04"}]
    kept, _ = import_file(save(data, [realtime_row(times, mode="[Streaming Event Caption]")]))
    assert kept[0].sample.media[0].markers == "per_event" and kept[0].sample.media[0].frame_times == [1, 3, 4]


def test_from_rows_to_shards(data: Path) -> None:
    rows = [row("<video>What?", f"answer {i}", videos=["clips/kettle.mp4"]) for i in range(6)]
    kept, _ = import_file(save(data, rows), license="CC0")
    (data / "out").mkdir()
    assert write_annotations(data / "out" / "a.jsonl", kept) == 6
    assert list(read_annotations(data / "out" / "a.jsonl")) == kept
    assert prepare(data / "out" / "a.jsonl", data / "s")["samples"] == 6
    assert [key for key, _ in read_samples(data / "s")] == [f"rows-00000{i}" for i in range(6)]
    assert next(read_samples(data / "s"))[1].license == "CC0"


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    (row("<|video|>what", "a", videos=["clips/gone.mp4"]), "media file is missing"),
    (row("<|video|>what", "a", videos=["rows.json"]), "media file cannot be decoded"),
    (row("what", "a", videos=["clips/kettle.mp4"]), "markers and media do not match"),
    ({"messages": [{"role": "user", "content": "a"}]}, "roles do not alternate"),
    ({"messages": []}, "no messages"),
    ({"messages": [{"role": "robot", "content": "a"}]}, "message without a known role and text"),
    (realtime_row([{"end": 1}, {"end": 1.5}, {"end": 3}], mode="[Streaming Event Caption]"), "an event has no frame"),
    (row("a\ud800", "b"), "text is not valid Unicode"),
    (row("a", "b", audios=["a.wav"]), "row has audio"),
    (row("a", "b", tools="[{}]"), "row has tools"),
    (row("a", "b", chosen="x", rejected="y"), "row is a ranking pair"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "function_call", "content": "b"}]}, "row has tools"),
    (row("", "<video>", videos=["clips/kettle.mp4\0"]), "media file is missing"),
    (row("", "<video>", videos=["k" * 5000]), "media file cannot be decoded"),
    ([], "row is not an object"),  # type: ignore[list-item]
    (realtime_row(["00:00", "00:01", "00:07"]), "a marker's time is behind the end of the video"),
    (row("", "a", videos=[f"{REALTIME}[INFO]{{"]), "media column cannot be read"),
]


@pytest.mark.parametrize(("bad", "reason"), BAD_ROWS)
def test_bad_rows_are_dropped_and_counted(data: Path, bad: dict[str, Any], reason: str) -> None:
    kept, report = import_file(save(data, [row("a", "b"), bad]))
    assert len(kept) == 1 and dict(report.dropped) == {reason: 1}
    assert report.to_dict()["examples"][reason][0].startswith("row 1: ")


def test_missing_media_are_listed_and_can_be_kept(data: Path) -> None:
    source = save(data, [row("<|video|>what", "a", videos=["clips/gone.mp4"]), row("a", "b")])
    assert import_file(source)[1].missing_media == {"clips/gone.mp4"}
    assert len(import_file(source, keep_missing=True)[0]) == 2


def test_a_file_without_a_usable_row_is_an_error(data: Path) -> None:
    source = save(data, [row("<|video|>what", "a", videos=["clips/gone.mp4"])])
    with pytest.raises(InputError, match=r"no row of rows can be used: media file is missing \(1\)"):
        import_file(source)


def test_a_registry_names_columns_and_tags(data: Path) -> None:
    rows = [{"talk": [{"who": "me", "what": "a"}, {"who": "bot", "what": "b"}], "system": "be brief"}]
    save(data, rows)
    tags = {"role_tag": "who", "content_tag": "what", "user_tag": "me", "assistant_tag": "bot"}
    entry = {"file_name": "rows.json", "formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": tags}
    registry = save(data, {"mine": entry, "far": {"hf_hub_url": "x/y"}}, "info.json")
    kept, _ = import_file(registry, name="mine")
    assert [(m.role, m.content) for m in kept[0].sample.messages] == [("system", "be brief"), ("user", "a"), ("assistant", "b")]
    for name, message in (("none", "has no entry 'none'"), ("far", "names no local file")):
        with pytest.raises(InputError, match=message):
            import_file(registry, name=name)


def test_the_older_spelling_of_tags_is_known(data: Path) -> None:
    turns = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    assert import_file(save(data, [{"conversations": turns}]))[0][0].sample.messages[1].content == "b"


def test_unreadable_files_are_named(data: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        import_file(data / "none.json")
    (data / "bad.json").write_text("[")
    with pytest.raises(InputError, match=r"bad\.json is not JSON"):
        import_file(data / "bad.json")
    with pytest.raises(InputError, match="must hold a JSON list"):
        import_file(save(data, {"a": 1}))


@pytest.mark.parametrize(("value", "expected"), [("00:07", 7), ("01:02:03", 3723), ("2.5", 2.5), (4, 4), ("00:01.5", 1.5)])
def test_times(value: Any, expected: float) -> None:
    assert seconds(value) == expected


@pytest.mark.parametrize("value", ["soon", None, "1:x", True, "nan", float("inf"), "-1"])
def test_bad_times_are_named(value: Any) -> None:
    with pytest.raises(InputError, match="is not seconds"):
        seconds(value)


def test_placeholders_must_match_the_times() -> None:
    entries = descriptor("a.mp4", ["00:00", "00:01"])
    assert media_entries([*entries, "b.mp4"], "video")[1].path == "b.mp4"
    for wrong in (entries[:1], [*entries, entries[1]], [entries[0], "b.mp4"], [f"{REALTIME}[WHAT]"]):
        with pytest.raises(InputError):
            media_entries(wrong, "video")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[]", "line 2 must be an object with a text field key"),
        ('{"key": "a", "files": [], "kind": "text", "messages": []}', "field files must map"),
        ('{"key": "a", "kind": "text", "messages": []}', "line 2: messages have the roles none"),
    ],
)
def test_broken_annotation_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    good = '{"key": "g", "kind": "text", "messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}'
    (tmp_path / "a.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(InputError, match=message):
        list(read_annotations(tmp_path / "a.jsonl"))


def test_a_media_file_that_went_away_is_named(data: Path) -> None:
    kept, _ = import_file(save(data, [row("<video>What?", "a", videos=["clips/kettle.mp4"])]))
    write_annotations(data / "a.jsonl", kept)
    (data / "clips" / "kettle.mp4").unlink()
    with pytest.raises(InputError, match=r"sample rows-000000: media file .*kettle\.mp4 (cannot be read|does not exist)"):
        prepare(data / "a.jsonl", data / "s")
    assert not (data / "s").exists()
