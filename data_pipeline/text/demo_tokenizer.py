"""A small byte-level BPE tokenizer with the family's special tokens, trained on given texts in about a second."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as RawTokenizer

from data_pipeline.text.tokenizer import IMAGE, SPECIAL_TOKENS, VIDEO, Tokenizer
from model.errors import InputError

BYTES = 256


def train_demo_tokenizer(texts: Iterable[str], vocab_size: int = 1000) -> Tokenizer:
    """Train on `texts`; the result has exactly `vocab_size` + 1 entries.

    Layout: 256 bytes and merges, the special tokens, unused reserved entries where the texts give fewer merges,
    `<|video|>` = vocab_size - 1 and `<|image|>` = vocab_size, which has no row in the head.

    Args:
        texts: any text; special token names inside it are not learned as text.
        vocab_size: rows of the model's head.

    Raises:
        InputError: vocab_size leaves no room for the bytes and the special tokens.
    """
    specials = [name for name in SPECIAL_TOKENS if name not in (VIDEO, IMAGE)]
    room = vocab_size - len(specials) - 1
    if room < BYTES:
        raise InputError(
            f"tokenizer vocab_size is {vocab_size}; it must be at least {BYTES + len(specials) + 1} "
            "for the bytes and the special tokens"
        )
    raw = RawTokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=room,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        special_tokens=[],
    )
    raw.train_from_iterator((_without_specials(text) for text in texts), trainer)
    reserved = [f"<|reserved_special_token_{i}|>" for i in range(room - raw.get_vocab_size())]
    names = [*specials, *reserved, VIDEO, IMAGE]
    raw.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return Tokenizer(raw, "demo tokenizer")


def _without_specials(text: str) -> str:
    for name in SPECIAL_TOKENS:
        text = text.replace(name, " ")
    return text
