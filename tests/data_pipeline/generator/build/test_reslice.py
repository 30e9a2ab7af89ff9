"""A corpus at another rate: the same dialogues, nobody asked."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from data_pipeline.generator.build.config import OutputConfig
from data_pipeline.generator.build.reslice import reslice
from data_pipeline.generator.build.run import build
from data_pipeline.generator.build.tokens import count_pieces
from data_pipeline.realtime.layout import lay_out
from data_pipeline.realtime.values import dialogue_from_dict
from data_pipeline.shards.info import read_samples
from model.errors import InputError
from tests.data_pipeline.generator.build.small import contents, rows, world_config
from tests.data_pipeline.shards.annotated import killed_at

CONFIG = world_config(max_wait=60.0, outputs=OutputConfig(card=False))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("old") / "out"
    build(CONFIG, out)
    return out


def test_rows_are_those_of_the_layout_and_shards_hold_the_clips(tmp_path: Path, old: Path) -> None:
    summary = reslice(CONFIG, old, tmp_path / "new", 2.0)
    made = [row for split in ("train", "validation", "test") for row in rows(tmp_path / "new", split)]
    assert made and summary["cost"] == {} and sum(summary["rows"].values()) == len(made)
    before = {row["id"]: row for split in ("train", "validation", "test") for row in rows(old, split)}
    for row in made:
        told = dialogue_from_dict(row, row["id"])
        assert told.emission_tps == 2.0
        assert told == lay_out(dialogue_from_dict(before[row["id"]], row["id"]), count_pieces, 2.0)
    keys = [key for key, _ in read_samples(tmp_path / "new" / "shards" / "train")]
    assert sorted(keys) == [row["id"] for row in rows(tmp_path / "new", "train")]


def test_the_same_rate_gives_the_same_rows(tmp_path: Path, old: Path) -> None:
    rate = rows(old, "train")[0]["emission_tps"]
    reslice(CONFIG, old, tmp_path / "new", rate)
    for split in ("train", "validation", "test"):
        assert rows(tmp_path / "new", split) == rows(old, split)


def test_killed_and_run_again(tmp_path: Path, old: Path) -> None:
    reslice(CONFIG, old, tmp_path / "whole", 4.0)
    out = tmp_path / "out"
    for operation in (2, 40, 120):
        killed_at(operation, partial(reslice, CONFIG, old, out, 4.0), out)
    reslice(CONFIG, old, out, 4.0)
    assert contents(out) == contents(tmp_path / "whole")


def test_what_is_no_finished_corpus(tmp_path: Path, old: Path) -> None:
    with pytest.raises(InputError, match="is no finished corpus"):
        reslice(CONFIG, tmp_path, tmp_path / "new", 4.0)
    with pytest.raises(InputError, match="choose another folder for OUT"):
        reslice(CONFIG, old, old, 4.0)
