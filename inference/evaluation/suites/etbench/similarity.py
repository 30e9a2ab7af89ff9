"""How alike two texts are: by the model of the official script where it is installed, else by their words."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

OFFICIAL_MODEL = "sentence-transformers/all-MiniLM-L6-v2"

Compare = Callable[[Sequence[tuple[str, str]]], list[float]]


@dataclass(frozen=True)
class Similarity:
    """How texts are compared.

    Attributes:
        name: `official` or `words`, as metrics are named.
        compare: the similarity of each pair.
    """

    name: str
    compare: Compare


def by_words(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """Cosine of the counts of words, case apart, of each pair: 1 for the same words, 0 for none in common."""
    return [_cosine(Counter(_words(a)), Counter(_words(b))) for a, b in pairs]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def _cosine(a: Counter[str], b: Counter[str]) -> float:
    product = sum(count * b[word] for word, count in a.items())
    length = math.sqrt(sum(count * count for count in a.values()) * sum(count * count for count in b.values()))
    return product / length if product else 0.0


@functools.cache
def installed() -> Similarity:
    """The official one where the package sentence-transformers and the model's files are on this machine, else by words.

    Nothing is fetched: a score must not wait for a network. An installation that cannot be imported counts as none.
    """
    if importlib.util.find_spec("sentence_transformers") is None:
        return Similarity("words", by_words)
    try:
        model: Any = importlib.import_module("sentence_transformers").SentenceTransformer(OFFICIAL_MODEL, local_files_only=True)
    except (ImportError, OSError, ValueError):
        return Similarity("words", by_words)

    def compare(pairs: Sequence[tuple[str, str]]) -> list[float]:
        texts = list(dict.fromkeys(text for pair in pairs for text in pair))
        vectors = dict(zip(texts, model.encode(texts) if texts else [], strict=True))
        return [float(vectors[a] @ vectors[b]) for a, b in pairs]

    return Similarity("official", compare)
