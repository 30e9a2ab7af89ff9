"""From real clips without a word about them to a corpus: every stage asks an endpoint, which plays back recorded answers.

The recording describes the clips that come with the package as a careful model would; three of its answers are bad on purpose: a
request that names a time, evidence that lies ahead, and an answer that is wrong.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import data_pipeline.assets
from data_pipeline.generator.backends.replay.recording import read_recording
from data_pipeline.generator.backends.replay.server import ReplayServer
from data_pipeline.realtime.dialogue import Dialogue
from data_pipeline.realtime.values import read_dialogues
from data_pipeline.timeline.values import read_timelines
from moss_train.cli.main import main

RECORDING = Path(__file__).with_name("recordings") / "bundled_clips.jsonl"
CLIPS = Path(data_pipeline.assets.__file__).with_name("media")
CONFIG = """
source: {kind: videos, path: CLIPS, name: bundled, license: see annotations.json}
author: model
model: {model: recorded, concurrency: 4, retries: 0}
rows: {per_video: 24, shares: {train: 1.0}}
fps: 2.0
emission: {mode: list, rates: [4.0, 8.0]}
gates: {judge: 2.5, near_duplicates: 0.9}
"""


def generate(folder: Path, url: str) -> int:
    config = folder.with_suffix(".yaml")
    config.write_text(CONFIG.replace("CLIPS", str(CLIPS)))
    return main(["data", "generate", str(folder), "--config", str(config), "--workers", "1", f"model.base_url={url}"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("real") / "corpus"
    with ReplayServer(read_recording(RECORDING)) as server:
        assert generate(folder, server.url) == 0
        return folder, server.requests


@pytest.fixture(scope="module")
def rows(corpus: tuple[Path, list[dict[str, Any]]]) -> list[Dialogue]:
    return [row for file in sorted(corpus[0].glob("parts/*/*/rows.jsonl")) for row in read_dialogues(file)]


def test_the_model_saw_the_frames_and_what_it_said_became_timelines(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, requests = corpus
    pictures = [
        sum(part["type"] == "image_url" for part in r["messages"][1]["content"]) for r in requests if _role(r) == "caption"
    ]
    assert sorted(pictures) == [6, 9, 11]
    timelines = {t.id: t for file in folder.glob("timelines/*/*.jsonl") for t in read_timelines(file)}
    assert set(timelines) == {"rabbit", "tower_white", "towers_green"}
    posture = [(s.begin, s.value) for s in timelines["rabbit"].states("posture:rabbit")]
    assert posture == [(0.0, "crouching"), (1.5, "standing")]


def test_every_stage_asked_the_endpoint_once_for_each_thing(corpus: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, requests = corpus
    assert {_role(r) for r in requests} == {"caption", "normalise", "changes", "plan", "answer", "style", "judge"}
    kept = len(list((folder / "artefacts").rglob("*.json")))
    assert kept == len(requests)
    cost = json.loads((folder / "build.json").read_text())["cost"]
    assert cost["calls"] == len(requests) and cost["roles"]["caption"]["calls"] == 3


def test_rows_answer_when_the_evidence_is_there(rows: list[Dialogue]) -> None:
    said = {(row.behaviours[0], u.said): u for row in rows for u in row.utterances if u.span}
    raised = said["delayed", "It raises them above its head."]
    assert raised.span is not None and raised.span[0] == 2.0 and raised.evidence == (2.0, 2.0)
    down = said["alert", "Its arms are down."]
    assert down.span is not None and down.span[0] == 4.5
    assert len({row.behaviours[0] for row in rows}) >= 7
    assert {row.video for row in rows} == {str(CLIPS / f"{name}.mp4") for name in ("rabbit", "tower_white", "towers_green")}


def test_bad_answers_cost_their_row_alone(corpus: tuple[Path, list[dict[str, Any]]], rows: list[Dialogue]) -> None:
    rejected = Counter((r["stage"], r["reason"].split(";")[0][:40]) for r in _lines(corpus[0], "rejected.jsonl"))
    stages = {stage for stage, _ in rejected}
    assert {"plan", "answer", "gate"} <= stages <= {"plan", "answer", "gate", "rules"}
    # a narration may be too slow for what happens; nothing else of the recording breaks a rule
    assert all(reason.startswith("late:") for stage, reason in rejected if stage == "rules")
    assert any("noon" in r["reason"] for r in _lines(corpus[0], "rejected.jsonl"))
    texts = " ".join(u.text for row in rows for u in row.utterances) + " ".join(u.text for row in rows for u in row.users)
    assert "noon" not in texts and "00:04" not in texts and "stay on" not in texts
    assert sum(rejected.values()) + len(rows) == 3 * 24


def test_shards_and_card(corpus: tuple[Path, list[dict[str, Any]]], rows: list[Dialogue]) -> None:
    folder, _ = corpus
    dropped = sum(reason["count"] for reason in json.loads((folder / "dropped.json").read_text()).values())
    assert any((folder / "shards" / "train").glob("*.tar"))
    assert json.loads((folder / "build.json").read_text())["rows"]["train"] == len(rows) - dropped > 10
    card = json.loads((folder / "card.json").read_text())
    assert card["totals"]["rows"] == len(rows) and card["totals"]["videos"] == 3
    page = (folder / "report.html").read_text()
    assert page.count("data:image/jpeg") > 100 and "It raises them above its head." in page


def _role(request: dict[str, Any]) -> str:
    return str(request["response_format"]["json_schema"]["name"])


def _lines(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for file in sorted(folder.glob(f"parts/*/*/{name}")) for line in file.read_text().splitlines()]
