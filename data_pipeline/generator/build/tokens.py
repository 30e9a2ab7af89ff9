"""What counts tokens while rows are laid out: a tokenizer, or words where there is none."""

from __future__ import annotations

import re

from data_pipeline.generator.build.config import BuildConfig
from data_pipeline.realtime.emission import CountTokens
from data_pipeline.realtime.words import CountCache
from data_pipeline.text.tokenizer import Tokenizer

_PIECE = re.compile(r"[㐀-鿿]|\w+|[^\w\s]")


def count_pieces(text: str) -> int:
    """Words, Chinese characters and punctuation marks: about what a large vocabulary gives."""
    return len(_PIECE.findall(text))


def open_tokenizer(config: BuildConfig) -> Tokenizer | None:
    """The tokenizer of a build; None where words are counted.

    Raises:
        InputError: the file is missing or none of ours.
    """
    return Tokenizer.from_file(config.tokenizer) if config.tokenizer else None


def token_counter(tokenizer: Tokenizer | None) -> CountTokens:
    """How many tokens a text has, remembered for texts that come again."""
    return CountCache(count_pieces if tokenizer is None else lambda text: len(tokenizer.encode(text)))
