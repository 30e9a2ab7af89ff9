"""Whether two short answers say the same, by their words."""

from __future__ import annotations

import re
from collections import Counter

SAME = 0.85
"""F1 of the words from which on two answers count as the same."""
MOST = 0.6
"""F1 from which on a sentence says little more than a short answer."""
# fmt: off
_FILLERS = frozenset([
    *"现在是的我看到数有它了着写之前刚才接对牌子",
    "a", "an", "the", "is", "are", "was", "were", "it", "its", "i", "see", "saw", "there", "that", "this", "of", "at",
    "in", "on", "to", "and", "now", "yes", "so", "look", "says", "said", "before", "count", "he", "she", "they", "sign",
])
# fmt: on
_WORD = re.compile(r"[a-z0-9]+|[㐀-鿿]")


def answer_words(text: str, question: str = "") -> Counter[str]:
    """Words of an answer without those that carry nothing or stand in the question; in Chinese its characters."""
    found = _WORD.findall(text.lower())
    asked = frozenset(_WORD.findall(question.lower()))
    told = [w for w in found if w not in _FILLERS and w not in asked] or [w for w in found if w not in _FILLERS]
    return Counter(told or found)


def agreement(a: str, b: str, question: str = "") -> float:
    """F1 of the words of two answers, 0..1."""
    left, right = answer_words(a, question), answer_words(b, question)
    shared = sum((left & right).values())
    return 2 * shared / (sum(left.values()) + sum(right.values())) if left and right else 0.0


def agree(a: str, b: str, question: str = "") -> bool:
    """Whether two answers to a question say the same."""
    return agreement(a, b, question) >= SAME


def holds(short: str, sentence: str, question: str = "") -> bool:
    """Whether a sentence says what a short answer says and little more: it has all of its words, and few others."""
    told, whole = answer_words(short, question), answer_words(sentence, question)
    return bool(told) and told <= whole and agreement(short, sentence, question) >= MOST
