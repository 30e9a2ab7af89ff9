"""`moss eval import`: from released annotations to scenarios that can be run and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.evaluation.evaluate import EvaluationRequest, evaluate
from inference.evaluation.running.settings import RunSettings
from inference.evaluation.storage import load_scenarios
from moss_train.cli.main import main
from tests.inference.checkpoints import random_tensors, tiny_config, tiny_tokenizer, write_checkpoint
from tests.inference.clips import write_clip

QUESTION = {
    "task_type": "Counting",
    "question": "How many?",
    "time_stamp": "00:00:02",
    "answer": "B",
    "options": ["One", "Two", "Three", "Four"],
}
PROACTIVE = {
    "task_type": "Proactive Output",
    "question": "Say lamp when it is lit.",
    "time_stamp": "00:00:00",
    "ground_truth_time_stamp": "00:00:02",
    "ground_truth_output": "lamp",
}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_clip(tmp_path / "videos" / "v.mp4", [10, 60, 110, 160])
    entries = [{"questions": [QUESTION, PROACTIVE], "video_path": "./videos/v.mp4"}]
    gone = [{"questions": [QUESTION], "video_path": "./videos/gone.mp4"}]
    (tmp_path / "questions_real.json").write_text(json.dumps(entries + gone))
    return tmp_path


def test_what_is_imported_can_be_run_and_scored(release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = release / "sb" / "scenarios.jsonl"
    words = ["eval", "import", "streamingbench", str(release / "questions_real.json"), "--videos", str(release / "videos")]
    assert main([*words, "--out", str(out), "--max-frames", "2", "--context-seconds", "inf", "--release", "made up"]) == 0
    said = capsys.readouterr().out
    assert "  counting: 1\n  polls: 1\n  streams: 1\nlicense of the annotations: not stated" in said
    assert "2 scenarios with 3 items" in said and "asked about them: 1 (./videos/gone.mp4)" in said
    assert f"moss eval {out} --max-frames 2 --checkpoint" in said
    manifest = json.loads((release / "sb" / "scenarios.jsonl.manifest.json").read_text())
    assert manifest["release"] == "made up" and manifest["context_seconds"] is None and manifest["max_frames"] == 2
    # The videos do not lie below the scenario file: their whole paths are written.
    assert [scenario.video for scenario in load_scenarios(out)] == [str(release / "videos" / "v.mp4")] * 2
    assert main([*words, "--out", str(release / "here.jsonl")]) == 0
    assert load_scenarios(release / "here.jsonl")[0].video == "videos/v.mp4"

    tokenizer = tiny_tokenizer()
    config = tiny_config(tokenizer.vocab_size)
    write_checkpoint(release / "hf", config, tokenizer=tokenizer, tensors=random_tensors(tiny_config(), 5))
    settings = RunSettings(max_answer_tokens=3, max_frames=2)
    evaluated = evaluate(EvaluationRequest(scenarios=out, checkpoint=release / "hf", out=release / "eval", settings=settings))
    metrics = evaluated.scores["checkpoint"]["suites"]["streamingbench"]
    assert not evaluated.failed and metrics["counting.accuracy_official"] in (0.0, 1.0)
    assert {"proactive_output.poll.time_accuracy_official", "proactive_output.push.time_accuracy"} <= set(metrics)
    record = json.loads((release / "eval" / "run.json").read_text())
    assert record["manifests"] == [manifest]


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "import", "--list"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and "ovobench: Questions about past" in said and "world" not in said
    assert "svbench" in said and "; some of its scores need a judge" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["streamingbank"], "suite 'streamingbank' is not known; use one of world, system, streamingbench"),
        (["world"], "suite world belongs to no release"),
        (["streamingbench", "--fps", "0"], "--fps is 0.0; it must be above 0"),
        (["streamingbench", "--limit", "0"], "--limit is 0; it must be at least 1"),
        (["streamingbench", "--context-seconds", "nan"], "--context-seconds is nan"),
        (["streamingbench", "--videos", "nowhere"], "nowhere is no folder"),
    ],
)
def test_errors_are_one_sentence(release: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    name, *rest = words
    given = [str(release / "questions_real.json"), "--videos", str(release / "videos"), "--out", str(release / "o.jsonl")]
    assert main(["eval", "import", name, *given, *rest]) == 2
    assert message in capsys.readouterr().err and not (release / "o.jsonl").exists()
