"""`moss data preview`: a page under a stage, and arguments that cannot be meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.shards import write_samples
from moss_train.cli.main import main
from tests.data_pipeline.helpers import tokenizer, video_sample


def words_for(tmp_path: Path, out: str) -> list[str]:
    write_samples(tmp_path / "set", [video_sample(i) for i in range(4)], samples_per_shard=2)
    tokenizer().save(tmp_path / "tokenizer.json")
    return ["data", "preview", str(tmp_path / "set"), str(tmp_path / out), "--tokenizer", str(tmp_path / "tokenizer.json")]


def test_a_page_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*words_for(tmp_path, "page.html"), "--stage", "pt1", "--set", "model=tiny", "--samples", "2"]
    assert main([*words, "--image-size", "56"]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<dd>pt1</dd>" in page and "mllama_pretrain (the stage" in page and "56 x 56 pixels" in page
    assert "v0000" in page and "v0002" in page and page.count("<article") == 3
    assert "2 samples, 1 packs" in capsys.readouterr().out and sorted(p.suffix for p in tmp_path.iterdir() if p.is_file()) == [
        ".html",
        ".json",
    ]


@pytest.mark.parametrize(
    ("out", "words", "sentence"),
    [
        ("page.txt", [], "is not the name of a page"),
        ("page.html", ["--samples", "0"], "--samples is 0"),
        ("page.html", ["--keys", "v0000", "none"], "has no sample none"),
        ("page.html", ["--stage", "pt1", "--config", "c.yaml"], "--stage and --conf-dir have no effect with --config"),
        ("page.html", ["--stage", "pt9"], "stage=pt9 is not known"),
    ],
)
def test_bad_arguments_end_in_a_sentence(
    tmp_path: Path, out: str, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words_for(tmp_path, out), *words]) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / out).exists()
