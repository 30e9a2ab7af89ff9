"""Rebuilding a tokenizer from byte ranks, and Llama 3's where the user has it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from data_pipeline.text import llama_tokenizer
from data_pipeline.text.llama_tokenizer import build_from_ranks, build_llama_tokenizer, special_token_names
from model.errors import InputError


def test_special_tokens_follow_the_vision_checkpoints() -> None:
    names = special_token_names()
    by_id = {128000 + i: name for i, name in enumerate(names)}
    assert len(names) == len(set(names)) == 257
    assert by_id[128000] == "<|begin_of_text|>" and by_id[128001] == "<|end_of_text|>"
    assert by_id[128004] == "<|finetune_right_pad_id|>"
    assert by_id[128006] == "<|start_header_id|>" and by_id[128007] == "<|end_header_id|>"
    assert by_id[128008] == "<|eom_id|>" and by_id[128009] == "<|eot_id|>"
    assert by_id[128011] == "<|silence|>" and by_id[128012] == "<|...|>"
    assert by_id[128254] == "<|reserved_special_token_245|>" and by_id[128255] == "<|video|>"
    assert by_id[128256] == "<|image|>"


def ranked(words: list[str]) -> list[bytes]:
    return [bytes([i]) for i in range(256)] + [w.encode() for w in words]


def test_merges_follow_the_ranks() -> None:
    tokenizer = build_from_ranks(ranked(["he", "ll", "hell", "o!", "hello"]), "small ranks")
    assert tokenizer.encode("hell") == [258]
    assert tokenizer.encode("hello") == [260]
    assert tokenizer.encode("hel") == [256, ord("l")]
    assert tokenizer.decode(tokenizer.encode("hello!\n12345 é")) == "hello!\n12345 é"


def test_entries_out_of_reach_of_merges_are_found_whole() -> None:
    # "abc" has no split into two entries, and is still one token
    assert build_from_ranks(ranked(["abc"]), "small ranks").encode("abc") == [256]


def test_numbers_are_cut_into_threes() -> None:
    tokenizer = build_from_ranks(ranked(["12", "123", "45", "1234"]), "small ranks")
    assert tokenizer.encode("12345") == [257, 258]


def test_damaged_rank_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not exist"):
        build_llama_tokenizer(tmp_path / "tokenizer.model", tmp_path)
    file = tmp_path / "tokenizer.model"
    file.write_text("no ranks here\n")
    with pytest.raises(InputError, match="line 1 is not"):
        build_llama_tokenizer(file, tmp_path)
    file.write_text("YQ== 0\nYg== 2\n")
    with pytest.raises(InputError, match="line 2 has rank 2 where 1 was expected"):
        build_llama_tokenizer(file, tmp_path)
    file.write_text("YQ== 0\n")
    with pytest.raises(InputError, match="has 1 ranks"):
        build_llama_tokenizer(file, tmp_path)


def test_the_package_is_asked_for_when_nothing_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_tokenizer, "PACKAGE", "a_package_that_is_nowhere")
    with pytest.raises(InputError, match="pip install --no-deps llama-models"):
        llama_tokenizer.find_rank_file()


@pytest.mark.skipif(importlib.util.find_spec("llama_models") is None, reason="the package llama-models is not installed")
def test_the_real_tokenizer(tmp_path: Path) -> None:
    tokenizer = build_llama_tokenizer(None, tmp_path)
    assert tokenizer.vocab_size == 128256 and tokenizer.silence_id == 128011 and tokenizer.video_id == 128255
    assert tokenizer.encode("Hello world") == [9906, 1917]
    assert build_llama_tokenizer(None, tmp_path).encode("a red kite") == tokenizer.encode("a red kite")
