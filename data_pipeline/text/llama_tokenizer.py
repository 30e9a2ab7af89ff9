"""The Llama-3 tokenizer in the id layout of Llama-3.2-Vision, built at run time from a user's own rank file.

The rank file (`tokenizer.model`) is under Meta's licence and never part of this project. It gives 128,000 byte
sequences by rank; the special tokens are laid out here, because the rank file's own package uses other ids for
them (there 128011 is the image token; in the checkpoints 128011 is free and the image token is 128256).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.util
import os
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as RawTokenizer

from data_pipeline.text.tokenizer import ELLIPSIS, IMAGE, PAD, SILENCE, VIDEO, Tokenizer
from model.errors import InputError

RANKS = 128000
SPECIALS = 256
PACKAGE = "llama_models"

SPLIT_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    2: "<|reserved_special_token_0|>",
    3: "<|reserved_special_token_1|>",
    4: PAD,
    5: "<|step_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
    11: SILENCE,  # was reserved_special_token_2
    12: ELLIPSIS,  # was reserved_special_token_3
    255: VIDEO,  # was reserved_special_token_246
}
"""Offset behind the ranks -> name; the other offsets keep their reserved names."""


def special_token_names() -> list[str]:
    """The 257 names from id 128000 on; the last, `<|image|>`, has no row in the head."""
    names = [_NAMED.get(i, f"<|reserved_special_token_{i - 9}|>") for i in range(SPECIALS)]
    return [*names, IMAGE]


def find_rank_file(path: str | os.PathLike[str] | None = None) -> Path:
    """The user's rank file, or the one inside the installed `llama-models` package.

    Raises:
        InputError: neither exists.
    """
    if path is not None:
        file = Path(path)
        if not file.is_file():
            raise InputError(f"tokenizer ranks {file} do not exist; give the path of Llama 3's tokenizer.model")
        return file
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        file = Path(folder) / "llama3" / "tokenizer.model"
        if file.is_file():
            return file
    raise InputError(
        "Llama 3's tokenizer.model was not found; give its path, or install it with "
        "`pip install --no-deps llama-models` (its licence is Meta's, see there)"
    )


def build_llama_tokenizer(path: str | os.PathLike[str] | None = None, cache: str | os.PathLike[str] | None = None) -> Tokenizer:
    """The real tokenizer; takes some seconds the first time, then reads the cached JSON.

    Args:
        path: Llama 3's `tokenizer.model`; None looks into the `llama-models` package.
        cache: folder of the cached JSON; None takes `moss-train` in the user's cache folder.

    Raises:
        InputError: no rank file, or one that is not Llama 3's format.
    """
    file = find_rank_file(path)
    content = file.read_bytes()
    home = Path(cache) if cache is not None else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moss-train"
    cached = home / f"llama3-vision-{hashlib.sha256(content).hexdigest()[:16]}.json"
    if cached.is_file():
        return Tokenizer.from_file(cached)
    tokenizer = build_from_ranks(_read_ranks(content, file), str(file))
    tokenizer.save(cached)
    return tokenizer


def build_from_ranks(ranks: list[bytes], source: str) -> Tokenizer:
    """A tokenizer of `len(ranks)` byte sequences and the 257 special tokens."""
    letters = _byte_letters()
    words = ["".join(letters[b] for b in token) for token in ranks]
    vocabulary = {word: rank for rank, word in enumerate(words)}
    # ignore_merges: a few entries cannot be reached by merges and are looked up whole
    raw = RawTokenizer(models.BPE(vocab=vocabulary, merges=_merges(words, vocabulary), ignore_merges=True))
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special_token_names()])
    return Tokenizer(raw, source)


def _merges(words: list[str], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """Every split of every entry into two entries, in the order in which the ranks would merge them."""
    merges: list[tuple[str, str]] = []
    for word in words:
        splits = [
            (vocabulary[word[:cut]], vocabulary[word[cut:]], cut)
            for cut in range(1, len(word))
            if word[:cut] in vocabulary and word[cut:] in vocabulary
        ]
        merges.extend((word[:cut], word[cut:]) for _, _, cut in sorted(splits))
    return merges


def _read_ranks(content: bytes, file: Path) -> list[bytes]:
    ranks: list[bytes] = []
    for number, line in enumerate(content.splitlines(), start=1):
        if not line:
            continue
        try:
            text, rank = line.split()
            token = base64.b64decode(text, validate=True)
            position = int(rank)
        except (ValueError, binascii.Error):
            raise InputError(f"{file} line {number} is not `base64 rank`; give Llama 3's tokenizer.model") from None
        if position != len(ranks):
            raise InputError(f"{file} line {number} has rank {position} where {len(ranks)} was expected; the file is damaged")
        ranks.append(token)
    if len(ranks) != RANKS:
        raise InputError(f"{file} has {len(ranks)} ranks; Llama 3's tokenizer.model has {RANKS}")
    return ranks


def _byte_letters() -> dict[int, str]:
    """The printable letter that stands for each byte in byte-level BPE."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for offset, byte in enumerate(b for b in range(256) if b not in letters):
        letters[byte] = chr(256 + offset)
    return letters
