"""`moss data lint`: exit codes, what is printed, and arguments that cannot be meant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.shards import write_samples
from moss_train.cli.main import main
from tests.data_pipeline.helpers import realtime_sample, text_sample, tokenizer


def folder(tmp_path: Path) -> Path:
    write_samples(tmp_path / "set", [realtime_sample(0), text_sample(1)])
    tokenizer().save(tmp_path / "tokenizer.json")
    return tmp_path / "set"


def test_warnings_alone_end_with_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "lint", str(folder(tmp_path))]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "2 samples: 0 errors, 4 warnings, 0 notes"
    assert any(line.startswith("warning no-license: 2 (100.0% of samples)") for line in printed)


def test_errors_under_a_stage_end_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--stage", "sft_realtime", "--tokenizer", str(tmp_path / "tokenizer.json")]
    assert main(["data", "lint", str(folder(tmp_path)), *words, "--set", "stage.max_frames_per_pack=3"]) == 1
    assert "4 frames are more than the 3 of a pack" in capsys.readouterr().out
    assert main(["data", "lint", str(tmp_path / "set"), *words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["samples"] == 2 and {r["name"] for r in report["rules"]} == {"no-license", "no-source"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--stage", "pt9"], "stage=pt9 is not known"),
        (["--set", "stage.sequence_length=9"], "--set has no effect without --stage"),
        (["--stage", "pt1", "--set", "nothing"], "'nothing' is not of the form KEY=VALUE"),
        (["--stage", "pt1", "--tokenizer", "nowhere.json"], "tokenizer nowhere.json does not exist"),
        (["--tokenizer", "t.json"], "--tokenizer has no effect without --stage"),
        (["--stage", "pt1", "--config", "c.yaml"], "--stage and --conf-dir have no effect with --config"),
        (["--workers", "0"], "--workers is 0"),
        (["elsewhere"], "elsewhere does not exist; name a folder of shards"),
    ],
)
def test_bad_arguments_end_in_a_sentence(
    tmp_path: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "lint", str(folder(tmp_path)), *words]) == 2
    assert sentence in capsys.readouterr().err
