"""`moss eval --judge`: answers go to the endpoint once, and the recorded replies give the same scores without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moss_train.cli.main import main
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.clips import write_clip
from tests.inference.evaluation.judge.server import says, serving

CHAIN = {"chain": {"questions": ["Who?", "Why?"], "answers": ["Ann", "tea"]}, "qac_timestamps_start": 0, "qac_timestamps_end": 2}


def _judge(body: dict[str, Any]) -> tuple[int, Any]:
    alone = "number alone" in body["messages"][0]["content"]
    return 200, says("4" if alone else "SA: 6\nCC: 5\nLC: 5\nTU: -1\nIC: 3\nOS: 5")


def test_the_judge_is_asked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_clip(tmp_path / "vid.mp4", [10, 60, 110])
    (tmp_path / "chains").mkdir()
    (tmp_path / "chains" / "vid.json").write_text(json.dumps([CHAIN]))
    scenarios = tmp_path / "sv.jsonl"
    assert main(["eval", "import", "svbench", str(tmp_path), "--videos", str(tmp_path), "--out", str(scenarios)]) == 0
    tokenizer = tiny_tokenizer()
    tensors = random_tensors(tiny_config(), 5)
    write_checkpoint(tmp_path / "hf", tiny_config(tokenizer.vocab_size), tokenizer=tokenizer, tensors=tensors)
    words = ["eval", str(scenarios), "--checkpoint", str(tmp_path / "hf"), "--max-answer-tokens", "3"]
    with serving(_judge) as server:
        asked = ["--judge", server.url, "--judge-model", "m"]
        assert main([*words, "--out", str(tmp_path / "out"), *asked]) == 0
        assert len(server.bodies) == 3  # two answers, one chain
        assert main([*words, "--out", str(tmp_path / "out"), *asked]) == 0 and len(server.bodies) == 3
    cache = str(tmp_path / "out" / "judge.jsonl")
    replay = ["--judge", "replay", "--judge-model", "m", "--judge-cache", cache]
    assert main([*words, "--out", str(tmp_path / "again"), *replay]) == 0
    assert "svbench: chain.SA" in capsys.readouterr().out
    scores = [json.loads((tmp_path / name / "scores.json").read_text()) for name in ("out", "again")]
    assert scores[0]["suites"]["svbench"] == scores[1]["suites"]["svbench"]
    assert scores[0]["suites"]["svbench"]["single.accuracy"] == 4.0 and "chain.TU" not in scores[0]["suites"]["svbench"]
    assert json.loads((tmp_path / "again" / "run.json").read_text())["judge"] == "m"
    assert main([*words, "--out", str(tmp_path / "none"), "--judge-model", "m"]) == 2
    assert "--judge is missing" in capsys.readouterr().err
