"""Corpora that are made in a second, and what of them must not depend on how they were made."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from data_pipeline.generator.build.config import BuildConfig, OutputConfig, RowsConfig, SourceConfig, WorldConfig
from data_pipeline.timeline.values import write_timelines
from tests.data_pipeline.generator.samples import kitchen
from tests.data_pipeline.helpers import make_video

MEASURED = {"build.json", "report.html", "card.json", ".lock"}
"""Files that tell times and memory; `.nv-meta` holds a data base that is made anew."""


def world_config(**more: Any) -> BuildConfig:
    """Ten rows of the world in five parts."""
    values: dict[str, Any] = {
        "world": WorldConfig(seconds=8, size=64),
        "rows": RowsConfig(train=6, validation=2, test=2),
        "rows_per_part": 2,
        "outputs": OutputConfig(card=False, questions=0.5, narration=0.5, samples_per_shard=4),
    }
    return BuildConfig(**{**values, **more})


def video_config(folder: Path, videos: int = 12, **more: Any) -> BuildConfig:
    """Annotated videos: one real file each, all with the same annotations."""
    clip = make_video(list(range(20, 100, 5)), rate=1, width=32, height=32)
    timelines = []
    for number in range(videos):
        path = folder / f"kitchen_{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip)
        timelines.append(dataclasses.replace(kitchen(), id=f"kitchen_{number}", video=str(path), license="CC0"))
    write_timelines(folder / "timelines.jsonl", timelines)
    values: dict[str, Any] = {
        "source": SourceConfig(kind="timelines", path=str(folder / "timelines.jsonl"), name="kitchens"),
        "rows": RowsConfig(shares={"train": 1.0, "validation": 1.0, "test": 1.0}, per_video=2),
        "rows_per_part": 3,
        "outputs": OutputConfig(card=False, samples_per_shard=4),
    }
    return BuildConfig(**{**values, **more})


def contents(folder: Path) -> dict[str, bytes]:
    """Bytes of every file of a corpus that its settings decide over."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.name not in MEASURED and ".nv-meta" not in p.parts)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def rows(folder: Path, split: str) -> list[dict[str, Any]]:
    """Dialogues of a split, in order."""
    parts = sorted((folder / "parts" / split).glob("[0-9]*"))
    return [json.loads(line) for part in parts for line in (part / "rows.jsonl").read_text().splitlines()]
