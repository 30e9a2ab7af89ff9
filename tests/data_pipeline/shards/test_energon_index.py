"""Energon's index: the same for the same tars, and a sentence where it cannot be made."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest

from data_pipeline.shards import write_samples
from data_pipeline.shards.energon_index import index_shards
from model.errors import InputError
from tests.data_pipeline.helpers import text_sample


def write(folder: Path) -> dict[str, str]:
    shards: dict[str, str] = write_samples(folder, (text_sample(i) for i in range(7)), samples_per_shard=3)["shards"]
    return shards


def test_same_tars_same_index_and_no_process_is_left(tmp_path: Path) -> None:
    shards = write(tmp_path / "a")
    first = {p.name: p.read_bytes() for p in (tmp_path / "a" / ".nv-meta").iterdir()}
    shutil.rmtree(tmp_path / "a" / ".nv-meta")
    index_shards(tmp_path / "a", shards)
    again = {p.name: p.read_bytes() for p in (tmp_path / "a" / ".nv-meta").iterdir()}
    assert again == first and multiprocessing.active_children() == []
    assert json.loads(again[".info.json"])["shard_counts"] == dict(zip(shards, [3, 3, 1], strict=True))


def test_a_shard_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    shards = write(tmp_path / "a")
    (tmp_path / "a" / "shard-000001.tar").write_bytes(b"junk" * 300)
    with pytest.raises(InputError, match=r"a cannot be indexed: .*shard-000001\.tar"):
        index_shards(tmp_path / "a", shards)


def test_a_database_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    shards = write(tmp_path / "a")
    (tmp_path / "a" / ".nv-meta" / "index.sqlite").unlink()
    (tmp_path / "a" / ".nv-meta" / "index.sqlite").mkdir()
    with pytest.raises(InputError, match="a cannot be indexed: unable to open database file; make room"):
        index_shards(tmp_path / "a", shards)
