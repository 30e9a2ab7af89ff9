"""Names and descriptions of checkpoints, without any model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from model.config import SwitchConfig, VideoMllamaConfig
from model.errors import InputError
from moss_train.checkpoint.description import (
    CheckpointDescription,
    find_checkpoint,
    first_difference,
    newest_checkpoint,
    published_checkpoints,
    read_description,
    step_name,
    write_description,
)
from tests.moss_train.packs import tiny_config


def _make(run: Path, step: int, latest: bool = True) -> Path:
    folder = run / "checkpoints" / step_name(step)
    folder.mkdir(parents=True)
    write_description(folder, CheckpointDescription(step=step, model=dataclasses.asdict(tiny_config()), stage={"name": "pt1"}))
    if latest:
        (run / "latest").write_text(folder.name)
    return folder


def test_description_round_trip(tmp_path: Path) -> None:
    description = read_description(_make(tmp_path, 7))
    assert description.step == 7 and description.config == tiny_config() and description.stage == {"name": "pt1"}


def test_run_folder_and_checkpoint_folder_mean_the_same(tmp_path: Path) -> None:
    _make(tmp_path, 1)
    newest = _make(tmp_path, 2)
    assert find_checkpoint(tmp_path) == find_checkpoint(newest) == newest
    assert newest_checkpoint(tmp_path / "elsewhere") is None


def test_an_unpublished_checkpoint_is_not_seen(tmp_path: Path) -> None:
    first = _make(tmp_path, 1)
    (tmp_path / "checkpoints" / "step_00000002.tmp").mkdir()
    assert find_checkpoint(tmp_path) == first


def test_what_is_there_counts_and_not_the_pointer(tmp_path: Path) -> None:
    folders = [_make(tmp_path, step) for step in (9, 10, 100_000_000)]
    for pointer in ("step_00000009", "step_00000777", "", "x" * 5000):
        (tmp_path / "latest").write_text(pointer)
        assert newest_checkpoint(tmp_path) == find_checkpoint(tmp_path) == folders[-1]
    (tmp_path / "latest").write_bytes(b"\xff\xfe")
    (tmp_path / "checkpoints" / "step_00000200").mkdir()  # without a description: no checkpoint
    (tmp_path / "checkpoints" / "notes").write_text("")
    assert published_checkpoints(tmp_path) == folders


def test_every_changed_byte_of_a_description_is_found_or_means_nothing(tmp_path: Path) -> None:
    folder = _make(tmp_path, 7)
    whole, expected = (folder / "checkpoint.json").read_bytes(), read_description(folder)
    for place in range(len(whole)):
        (folder / "checkpoint.json").write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert read_description(folder) == expected
        except InputError as error:
            assert "checkpoint.json" in str(error)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "checkpoint.json").write_text("{"), "damaged"),
        (lambda f: (f / "checkpoint.json").write_text(json.dumps({"step": 1, "format": 2, "checksum": 0})), "damaged"),
        (lambda f: (f / "checkpoint.json").write_text(json.dumps({"step": 1, "model": {}})), "format 1, which this version no"),
        (lambda f: (f / "checkpoint.json").write_text(json.dumps({"step": 1, "model": {}, "format": 99})), "format 99"),
        (lambda f: (f / "checkpoint.json").unlink(), "not a checkpoint"),
    ],
)
def test_damaged_description(tmp_path: Path, damage: object, message: str) -> None:
    folder = _make(tmp_path, 1)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        read_description(folder)


def test_nothing_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file"):
        find_checkpoint(tmp_path / "file")
    with pytest.raises(InputError, match="does not exist"):
        find_checkpoint(tmp_path / "absent")
    with pytest.raises(InputError, match="no published checkpoint"):
        find_checkpoint(tmp_path)


def test_difference_names_the_field_and_ignores_switches() -> None:
    ours = tiny_config()
    assert first_difference(ours, dataclasses.replace(ours, switches=SwitchConfig(no_visible_rows="zero"))) is None
    text = dataclasses.replace(ours.text, num_hidden_layers=5)
    assert first_difference(ours, VideoMllamaConfig(vision=ours.vision, text=text)) == (
        "text.num_hidden_layers is 4 in this run's model and 5 there"
    )
