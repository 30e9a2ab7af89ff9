"""A small tokenizer of the world's texts holds every word of the templates and of the world as one token."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from data_pipeline.assets import real
from data_pipeline.generator.templates.vocabulary import corpus
from data_pipeline.generator.vocabulary import world_texts
from data_pipeline.text.tokenizer import Tokenizer
from data_pipeline.world.tasks.text import text_sample
from moss_train.cli.main import main


def test_the_command_makes_one_token_of_every_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "tokenizer.json"
    assert main(["data", "tokenizer", str(path), "--world"]) == 0
    tokenizer = Tokenizer.from_file(path)
    assert tokenizer.vocab_size == 1000
    texts = corpus("en") + [m.content for seed in range(30) for m in text_sample(seed).messages] + ["user", "assistant"]
    for text in texts:
        assert len(tokenizer.encode(text)) == len(re.findall(r"[A-Za-z]+|[^A-Za-z\s]+", text)), text
    capsys.readouterr()
    assert main(["data", "tokenizer", str(tmp_path / "other.json")]) == 2
    assert "or --world" in " ".join(capsys.readouterr().err.split())


def test_no_text_of_a_real_clip_is_among_them() -> None:
    assert not set(real.texts()) & set(world_texts())
