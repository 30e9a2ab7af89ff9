"""Names, pointers and retention of checkpoints, without any model."""

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
    read_description,
    remove_old,
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


def test_retention_keeps_the_newest_and_the_pointed(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        _make(tmp_path, step)
    (tmp_path / "latest").write_text(step_name(1))
    assert remove_old(tmp_path, 2) == [step_name(2)]
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [step_name(1), step_name(3), step_name(4)]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "checkpoint.json").write_text("{"), "damaged"),
        (lambda f: (f / "checkpoint.json").write_text(json.dumps({"step": 1, "colour": 2})), "damaged"),
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
    (tmp_path / "latest").write_text("step_00000009")
    with pytest.raises(InputError, match="names step_00000009"):
        find_checkpoint(tmp_path)


def test_difference_names_the_field_and_ignores_switches() -> None:
    ours = tiny_config()
    assert first_difference(ours, dataclasses.replace(ours, switches=SwitchConfig(no_visible_rows="zero"))) is None
    text = dataclasses.replace(ours.text, num_hidden_layers=5)
    assert first_difference(ours, VideoMllamaConfig(vision=ours.vision, text=text)) == (
        "text.num_hidden_layers is 4 in this run's model and 5 there"
    )
