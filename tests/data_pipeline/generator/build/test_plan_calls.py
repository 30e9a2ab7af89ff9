"""What a build would make and cost."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from data_pipeline.generator.build.config import GateConfig, RowsConfig, SourceConfig
from data_pipeline.generator.build.estimate import estimate
from data_pipeline.generator.build.run import build
from model.errors import InputError
from tests.data_pipeline.generator.build.small import rows, video_config, world_config

MODEL = {"base_url": "http://localhost:1/v1", "model": "m"}


def test_the_world_needs_no_model() -> None:
    told = estimate(world_config())
    assert told == {"rows": "train 6, validation 2, test 2", "frames": 80, "parts": 5, "model calls": 0}


def test_templates_ask_nobody(tmp_path: Path) -> None:
    config = video_config(tmp_path, videos=5)
    told = estimate(config)
    assert told == {"videos": 5, "dialogues tried": 10, "model calls": 0}
    build(config, tmp_path / "out")
    made = sum(len(rows(tmp_path / "out", split)) for split in ("train", "validation", "test"))
    assert 0 < made <= 10


def test_a_model_has_calls_tokens_dollars_and_hours_that_grow_with_the_rows(tmp_path: Path) -> None:
    prices = {"prices": {"input": 1.0, "output": 4.0}, "concurrency": 2}
    config = video_config(tmp_path, videos=2, author="model", model={**MODEL, **prices}, gates=GateConfig(judge=1.0))
    told = estimate(config)
    assert told["model calls"] > 20 and "normalise 2, changes 2" in told["calls by role"] and "judge 4" in told["calls by role"]
    assert float(str(told["dollars"]).split()[-1]) > 0 and str(told["hours"]).endswith("at 2 calls at a time")
    more = estimate(dataclasses.replace(config, rows=RowsConfig(per_video=8)))
    assert int(more["model calls"]) > int(told["model calls"])
    assert "give model.prices" in str(estimate(dataclasses.replace(config, model=MODEL))["dollars"])


def test_videos_without_annotations_are_looked_at(tmp_path: Path) -> None:
    video_config(tmp_path, videos=3)
    source = SourceConfig(kind="videos", path=str(tmp_path))
    told = estimate(world_config(source=source, author="model", model=MODEL))
    assert told["videos"] == 3 and str(told["calls by role"]).startswith("caption 3, ")


@pytest.mark.parametrize(
    ("kind", "message"), [("videos", "does not exist"), ("captions", "none.json"), ("x", "use world, videos")]
)
def test_a_source_that_is_not_there(tmp_path: Path, kind: str, message: str) -> None:
    source = SourceConfig(kind=kind, path=str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=message):
        estimate(world_config(source=source, author="model", model=MODEL))


def test_limits_of_the_endpoint_make_it_longer(tmp_path: Path) -> None:
    config = video_config(tmp_path, videos=2, author="model", model=MODEL)
    calls = int(estimate(config)["model calls"])
    for name, least in (("requests_per_minute", calls / 60), ("tokens_per_minute", calls)):
        slow = dataclasses.replace(config, model={**MODEL, name: 1})
        assert float(str(estimate(slow)["hours"]).split()[1]) >= least - 0.01
