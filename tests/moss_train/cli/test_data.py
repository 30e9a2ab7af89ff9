"""`moss data`, run as a user would."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_pipeline.text.tokenizer import Tokenizer
from moss_train.cli.main import main
from tests.data_pipeline.helpers import grey_levels, make_image, make_video


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    (tmp_path / "clip.mp4").write_bytes(make_video(grey_levels(8)))
    (tmp_path / "kite.png").write_bytes(make_image())
    content = [
        {"messages": [{"role": "user", "content": f"<|{kind}|>what ?"}, {"role": "assistant", "content": "red"}], key: [file]}
        for kind, key, file in (("video", "videos", "clip.mp4"), ("image", "images", "kite.png"), ("image", "images", "gone.png"))
    ]
    (tmp_path / "rows.json").write_text(json.dumps(content))
    return tmp_path


def test_from_json_to_shards_and_a_tokenizer(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    two = ["--workers", "2"]
    assert main(["data", "import", str(rows / "rows.json"), str(rows / "a.jsonl"), "--license", "CC0", *two]) == 0
    out = capsys.readouterr().out
    assert "2 of 3 rows kept" in out and "dropped 1: media file is missing, such as row 2" in out
    report = json.loads((rows / "a.jsonl.report.json").read_text())
    assert report["missing_media"] == ["gone.png"] and report["dropped"] == {"media file is missing": 1}

    words = ["--samples-per-shard", "1", "--seed", "1", *two]
    assert main(["data", "prepare", str(rows / "a.jsonl"), str(rows / "shards"), *words]) == 0
    assert "2 samples in 2 shards" in capsys.readouterr().out

    assert main(["data", "info", str(rows / "shards"), "--check", "--show", "1"]) == 0
    out = capsys.readouterr().out
    assert "kinds: image 1, video 1" in out and "licenses: CC0 2" in out and "all 2 shards are as written" in out

    arguments = ["data", "tokenizer", str(rows / "t.json"), str(rows / "shards"), str(rows / "a.jsonl"), "--vocab-size", "300"]
    assert main(arguments) == 0
    assert Tokenizer.from_file(rows / "t.json").vocab_size == 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["import", "{}/none.json", "{}/a.jsonl"], "none.json does not exist"),
        (["import", "{}/rows.json", "{}/a.jsonl", "--template", "chatml"], "template is 'chatml'"),
        (["import", "{}/rows.json", "{}/a.jsonl", "--language", "en"], "--language is en; it belongs to --format subtitles"),
        (["import", "{}/rows.json", "{}/a", "--dataset-info", "--names", ","], "--names ',' names no entry"),
        (["import", "{}/rows.json", "{}/a", "--dataset-info", "--format", "llava"], "a registry tells the format"),
        (["import", "{}", "{}/a.jsonl", "--format", "subtitles", "--media-root", "{}"], "have no effect with --format subtitles"),
        (["prepare", "{}/none.jsonl", "{}/s"], "annotations {}/none.jsonl do not exist"),
        (["info", "{}"], "is not a dataset folder"),
        (["tokenizer", "{}/t.json"], "no texts were given"),
        (["tokenizer", "{}/t.json", "{}/none.txt"], "text source {}/none.txt does not exist"),
        (["tokenizer", "{}/t.json", "--llama", "{}/none.model"], "none.model do not exist"),
    ],
)
def test_bad_input_is_one_sentence(rows: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *(a.format(rows) for a in arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("moss: error: ") and message.format(rows) in error and error.count("\n") == 1


def test_a_changed_shard_is_reported(rows: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["data", "import", str(rows / "rows.json"), str(rows / "a.jsonl")])
    main(["data", "prepare", str(rows / "a.jsonl"), str(rows / "shards")])
    with (rows / "shards" / "shard-000000.tar").open("ab") as file:
        file.write(b"x")
    assert main(["data", "info", str(rows / "shards"), "--check"]) == 2
    assert "was changed since it was written" in capsys.readouterr().err


def test_the_world_is_mounted(tmp_path: Path) -> None:
    assert main(["data", "world", str(tmp_path), "--split", "train", "--qa", "2"]) == 0
    assert main(["data", "info", str(tmp_path / "train" / "qa"), "--check"]) == 0
