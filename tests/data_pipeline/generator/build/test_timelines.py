"""Annotated videos as a source: each once, in one split, with its provenance."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from pathlib import Path
from typing import Any

from data_pipeline.generator.build.config import GateConfig, OutputConfig, RowsConfig, SourceConfig
from data_pipeline.generator.build.part import _safe
from data_pipeline.generator.build.run import build
from data_pipeline.shards.info import read_samples
from data_pipeline.timeline.values import read_timelines, write_timelines
from tests.data_pipeline.generator.build.small import rows, video_config, world_config

SPLITS = ("train", "validation", "test")


def all_rows(out: Path) -> list[dict[str, Any]]:
    return [row for split in SPLITS for row in rows(out, split)]


def test_rows_name_video_licence_and_split_and_shards_hold_the_files(tmp_path: Path) -> None:
    config = video_config(tmp_path / "in")
    summary = build(config, tmp_path / "out")
    made = all_rows(tmp_path / "out")
    assert made and summary["source"]["left_out"] == {}
    for row in made:
        assert row["source"]["license"] == "CC0" and Path(row["source"]["video"]).is_file()
        assert row["source"]["split_key"] == row["timeline"] and row["source"]["name"] == "kitchens" and row["gen"]["author"]
    for split in set(SPLITS) & set(summary["rows"]):
        clips = {Path(row["source"]["video"]).read_bytes() for row in rows(tmp_path / "out", split)}
        for shard in (tmp_path / "out" / "shards" / split).glob("*.tar"):
            with tarfile.open(shard) as tar:
                videos = [tar.extractfile(member) for member in tar if member.name.endswith(".0.mp4")]
                assert videos and all(video is not None and video.read() in clips for video in videos)


def test_videos_of_one_key_share_a_split(tmp_path: Path) -> None:
    config = video_config(tmp_path / "in", videos=24)
    path = tmp_path / "in" / "timelines.jsonl"
    keyed = [dataclasses.replace(t, split_key=f"channel {i % 5}") for i, t in enumerate(read_timelines(path))]
    write_timelines(path, keyed)
    build(dataclasses.replace(config, outputs=OutputConfig(card=False, shards=False)), tmp_path / "out")
    where: dict[str, set[str]] = {}
    for split in SPLITS:
        for row in rows(tmp_path / "out", split):
            where.setdefault(row["source"]["split_key"], set()).add(split)
    assert len(where) > 1 and all(len(splits) == 1 for splits in where.values())


def test_ids_that_look_alike_in_keys_stay_apart(tmp_path: Path) -> None:
    names = ["a.b", "a_b", "a/b", "ab", "é", "è", "x" * 300, "x" * 301]
    keys = [_safe(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(key.isascii() and "." not in key and "/" not in key and len(key) < 70 for key in keys)
    config = video_config(tmp_path / "in", videos=len(names), rows=RowsConfig(shares={"train": 1.0}))
    path = tmp_path / "in" / "timelines.jsonl"
    write_timelines(path, [dataclasses.replace(t, id=name) for t, name in zip(read_timelines(path), names, strict=True)])
    summary = build(config, tmp_path / "out")
    keys = [key for key, _ in read_samples(tmp_path / "out" / "shards" / "train")]
    assert len(keys) == len(set(keys)) == summary["rows"]["train"]


def test_licences_and_evaluation_sets_are_kept_out_and_counted(tmp_path: Path) -> None:
    config = video_config(tmp_path / "in", videos=6)
    path = tmp_path / "in" / "timelines.jsonl"
    write_timelines(path, [dataclasses.replace(t, license="" if i == 1 else "CC0") for i, t in enumerate(read_timelines(path))])
    (tmp_path / "evaluated.txt").write_text("# benchmark\nkitchen_2\n")
    gates = GateConfig(require_license=True, decontaminate=(str(tmp_path / "evaluated.txt"),))
    summary = build(dataclasses.replace(config, gates=gates), tmp_path / "out")
    assert summary["source"]["left_out"] == {"without a licence": 1, "in a decontamination list by name": 1}
    assert {row["timeline"] for row in all_rows(tmp_path / "out")} <= {f"kitchen_{i}" for i in (0, 3, 4, 5)}


def test_rows_that_cannot_be_read_are_told_and_the_others_are_used(tmp_path: Path) -> None:
    captions = [
        {"video": f"v{i}", "duration": 12, "captions": [{"start": 1, "end": 4, "caption": "a dog runs"}]} for i in range(4)
    ]
    captions.append({"video": "broken", "duration": -3, "captions": [{"start": 1, "end": 4, "caption": "a dog runs"}]})
    (tmp_path / "captions.json").write_text(json.dumps(captions))
    source = SourceConfig(kind="captions", path=str(tmp_path / "captions.json"))
    config = world_config(source=source, outputs=OutputConfig(card=False, shards=False), behaviours={"narrate": 1.0})
    build(config, tmp_path / "out")
    assert {row["timeline"] for row in all_rows(tmp_path / "out")} == {f"v{i}" for i in range(4)}
    assert "row 5 field duration is -3" in (tmp_path / "out" / "source_faults.txt").read_text()


def test_of_two_videos_with_one_id_the_first_is_used(tmp_path: Path) -> None:
    config = video_config(tmp_path / "in", videos=1)
    path = tmp_path / "in" / "timelines.jsonl"
    write_timelines(path, [*read_timelines(path)] * 2)
    build(dataclasses.replace(config, outputs=OutputConfig(card=False, shards=False)), tmp_path / "out")
    assert "kitchen_0" in (tmp_path / "out" / "source_faults.txt").read_text()
    assert len({row["id"] for row in all_rows(tmp_path / "out")}) == len(all_rows(tmp_path / "out")) <= 2
