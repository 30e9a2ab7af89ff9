"""The demo tokenizer, reading and writing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.text.demo_tokenizer import train_demo_tokenizer
from data_pipeline.text.tokenizer import SPECIAL_TOKENS, Tokenizer
from model.errors import InputError
from tests.data_pipeline.helpers import TEXTS, VOCABULARY, tokenizer

TOKENIZER = tokenizer()


@given(st.text(max_size=60))
def test_any_text_survives(text: str) -> None:
    if not any(name in text for name in SPECIAL_TOKENS):
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_the_image_token_is_the_first_id_without_a_row_in_the_head() -> None:
    assert TOKENIZER.vocab_size == VOCABULARY == TOKENIZER.image_id
    assert TOKENIZER.video_id == VOCABULARY - 1
    assert TOKENIZER.raw.get_vocab_size() == VOCABULARY + 1


def test_special_tokens_inside_text_are_single_ids() -> None:
    ids = TOKENIZER.encode("red<|silence|><|video|> ball<|eot_id|>")
    assert [i for i in ids if i in (TOKENIZER.silence_id, TOKENIZER.video_id, TOKENIZER.eot_id)] == [
        TOKENIZER.silence_id,
        TOKENIZER.video_id,
        TOKENIZER.eot_id,
    ]
    assert TOKENIZER.decode(ids) == "red<|silence|><|video|> ball<|eot_id|>"
    assert TOKENIZER.decode(ids, skip_special=True) == "red ball"


def test_nothing_is_added_to_the_text() -> None:
    assert TOKENIZER.encode("") == []


def test_frequent_words_become_single_tokens() -> None:
    assert len(TOKENIZER.encode("the red ball")) == 3


def test_training_is_reproducible() -> None:
    assert train_demo_tokenizer(TEXTS, VOCABULARY).raw.to_str() == TOKENIZER.raw.to_str()


def test_too_small_a_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="vocab_size is 100"):
        train_demo_tokenizer(TEXTS, 100)


def test_a_file_gives_the_same_ids(tmp_path: Path) -> None:
    TOKENIZER.save(tmp_path / "tokenizer.json")
    for place in (tmp_path, tmp_path / "tokenizer.json"):
        assert Tokenizer.from_file(place).encode("the blue flag<|video|>") == TOKENIZER.encode("the blue flag<|video|>")


def test_unusable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        Tokenizer.from_file(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(InputError, match=r"broken\.json cannot be read"):
        Tokenizer.from_file(tmp_path / "broken.json")


def test_a_tokenizer_without_the_special_tokens_is_refused() -> None:
    from tokenizers import Tokenizer as Raw
    from tokenizers import models

    with pytest.raises(InputError, match=r"lacks the special tokens <\|begin_of_text\|>"):
        Tokenizer(Raw(models.BPE()))
