"""Builds whose endpoint answers as no endpoint should: they end, with sound rows and every rejection counted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from data_pipeline.generator.backends.replay.hostile import always, at_times
from data_pipeline.generator.backends.replay.recording import Entry, Recording
from data_pipeline.generator.backends.replay.server import Answering, ReplayServer, Response, failure, faithful
from data_pipeline.generator.build.config import BuildConfig, OutputConfig, RowsConfig
from data_pipeline.generator.build.run import build
from data_pipeline.realtime.rules import check_dialogue
from data_pipeline.realtime.values import dialogue_from_dict
from model.errors import InputError
from tests.data_pipeline.generator.build.small import rows, video_config
from tests.data_pipeline.generator.models.scripted import SILENT
from tests.data_pipeline.generator.models.test_over_http import CUTS, PLAN, STOPS, STYLE

CUT = {"t": 4.0, "kind": "action", "before": "washing a tomato", "after": "cutting it", "subject": "", "salience": 1.0}
CHANGED = Entry(role="changes", answer={"changes": [CUT]})
RECORDING = Recording([CHANGED, PLAN, CUTS, STOPS, STYLE, Entry(role="answer", answer=SILENT)])
LIMIT = 0.1


def config(folder: Path, server: ReplayServer, videos: int, **model: Any) -> BuildConfig:
    """Two dialogues a video, each planned, answered and styled by the endpoint."""
    quick = {"base_url": server.url, "model": "m", "timeout": 2.0, "retries": 0, "wait": 0.01, "longest_wait": 0.02}
    return video_config(
        folder,
        videos=videos,
        author="model",
        model={**quick, "concurrency": 2, **model},
        author_options={"stages": ["changes", "plan", "style"], "by_rules": []},
        behaviours={"delayed": 1.0},
        rows=RowsConfig(shares={"train": 1.0}, per_video=2),
        outputs=OutputConfig(card=False, shards=False),
        max_wait=60.0,
    )


def rejected(out: Path) -> list[dict[str, Any]]:
    return [json.loads(x) for p in out.glob("parts/*/*/rejected.jsonl") for x in p.read_text().splitlines()]


def test_two_hundred_answers_of_which_many_are_hostile(tmp_path: Path) -> None:
    storm: Answering = at_times(0.3, 3, LIMIT, faithful)
    with ReplayServer(RECORDING, storm) as server:
        summary = build(config(tmp_path / "in", server, 40, timeout=LIMIT * 3, retries=1), tmp_path / "out")
        assert len(server.requests) >= 200
    made, refused = rows(tmp_path / "out", "train"), rejected(tmp_path / "out")
    assert made and refused and len(made) + len(refused) == 80
    assert sum(r["count"] for r in summary["rejections"]) == len(refused)
    for row in made:
        assert not check_dialogue(dialogue_from_dict(row, row["id"]), lambda text: len(text.split()))


@pytest.mark.parametrize("kind", ["cut_json", "refusal_text", "wrong_types", "no_choices"])
def test_nothing_sound_comes_of_a_kind_of_hostile_answer(tmp_path: Path, kind: str) -> None:
    with ReplayServer(RECORDING, always(kind, 0, LIMIT)) as server, pytest.raises(InputError, match="no row is left"):
        build(config(tmp_path / "in", server, 3), tmp_path / "out")
    assert len(rejected(tmp_path / "out")) == 6


@pytest.mark.parametrize("kind", ["broken", "dropped"])
def test_an_endpoint_that_is_down_stops_the_build_which_goes_on_later(tmp_path: Path, kind: str) -> None:
    with ReplayServer(RECORDING, always(kind, 0, LIMIT)) as server:
        settings = config(tmp_path / "in", server, 6)
        with pytest.raises(InputError, match="the same command goes on"):
            build(settings, tmp_path / "out")
    assert not rows(tmp_path / "out", "train")


def test_an_empty_account_loses_no_row(tmp_path: Path) -> None:
    asked, paid = 0, False

    def answering(values: dict[str, Any], answer: dict[str, Any] | None) -> Response:
        nonlocal asked
        asked += 1
        return failure(402, "insufficient balance") if asked > 8 and not paid else faithful(values, answer)

    with ReplayServer(RECORDING, answering) as server:
        settings = config(tmp_path / "in", server, 6)
        with pytest.raises(InputError, match=r"402: insufficient balance.*the same command goes on"):
            build(settings, tmp_path / "out")
        paid = True
        assert build(settings, tmp_path / "out")["rows"] == {"train": 12}
    assert not rejected(tmp_path / "out")


def test_a_spent_budget_stops_and_what_was_paid_is_never_asked_again(tmp_path: Path) -> None:
    with ReplayServer(RECORDING) as server:
        settings = config(tmp_path / "in", server, 6)
        whole = build(settings, tmp_path / "whole")
        asked = len(server.requests)
        poor = dataclasses.replace(settings, model={**settings.model, "budget_tokens": 4000})
        stops = 0
        for _ in range(60):
            try:
                summary = build(poor, tmp_path / "out")
                break
            except InputError as error:
                assert "model.budget_tokens" in str(error) and "the same command goes on" in str(error)
                stops += 1
        assert stops and len(server.requests) == 2 * asked
    assert rows(tmp_path / "out", "train") == rows(tmp_path / "whole", "train") and summary["rows"] == whole["rows"]
