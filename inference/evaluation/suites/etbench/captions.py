"""Captions with their times in replies, and what E.T. Bench's dense captioning tasks make of them.

The official reading is written after what `dvc_format` of its `compute_metrics.py` does, oddities included.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Iterable, Sequence

from inference.evaluation.suites.etbench.similarity import Similarity
from inference.evaluation.suites.etbench.spans import THRESHOLDS, Span

Caption = tuple[Span, str]

_NUMBER = r"\d+\.*\d*"
_RANGE = re.compile(rf"({_NUMBER})\s*-\s*({_NUMBER})")
_CLOCK = re.compile(rf"{_NUMBER}:{_NUMBER}")
_START = re.compile(rf"start(?:ing)? time: ({_NUMBER})")
_END = re.compile(rf"end(?:ing)? time: ({_NUMBER})")
_START_AND_END = re.compile(rf"start time ({_NUMBER}), end time ({_NUMBER})")
_RADIUS = 20.0
"""Seconds around a lone time that the official reading makes a span of."""
_STRICT_LINE = re.compile(
    r"\s*(\d+(?:\.\d+)?)\s*(?:s|sec|seconds)?\s*(?:-|–|to)\s*(\d+(?:\.\d+)?)(?![\d:]|\.\d)\s*(?:(?:s|sec|seconds)\b)?[\s,.:;-]*(\S.*)",
    re.IGNORECASE,
)
_SOFTEN = 1e-8
"""Added to the union in the official overlap of captions, so that one of exactly a threshold does not reach it."""
_MOST = 1000
"""Captions of one reply that count."""


def official_captions(reply: str) -> list[Caption]:
    """Spans with what is said of them; empty where the script counts the reply as failed.

    All of the form `A - B`, each with the text up to the next; else those of `start time: A`, `end time: B` and `description:`;
    else the first line in which a time can be guessed.
    """
    try:
        found = _of_paragraph(reply.lower())
    except ValueError:
        return []
    if found is None:
        return []
    return [((min(span), max(span)), text) for span, text in found or _first_line(reply)]


def strict_captions(reply: str) -> list[Caption]:
    """Those of a reply whose every line is `A - B seconds, text` with A before B; otherwise none."""
    found = []
    for line in reply.splitlines():
        if not line.strip():
            continue
        parts = _STRICT_LINE.fullmatch(line)
        if parts is None or float(parts[1]) >= float(parts[2]) or _RANGE.search(parts[3]):
            return []
        found.append(((float(parts[1]), float(parts[2])), parts[3].strip()))
    return found


def _of_paragraph(text: str) -> list[Caption] | None:
    """Spans and what lies between them, in order; None where the script stops with an error."""
    spans = _floats(_RANGE.findall(text))
    captions: list[str] = []
    if spans:
        rest = text
        for found in _RANGE.finditer(text):
            rest = rest.replace(found[0], "\n")
        captions = rest.replace("seconds", "").split("\n")
    else:
        spans = _floats(zip(_START.findall(text), _END.findall(text), strict=False))
        if spans:
            captions = re.findall(r"description: (.*)", text) or re.findall(r"\*\s*(.*)", text)
        elif _START_AND_END.search(text):
            return None
    # A preface before the first time is taken for its caption, as in the script.
    kept = [caption.strip().strip(", ").rstrip() for caption in captions if len(caption) > 5]
    return list(zip(spans, kept, strict=False))


def _first_line(reply: str) -> list[Caption]:
    """The first line, or sentence of a reply of one line, in which a time can be guessed."""
    if "\n" in reply:
        lines = [line for line in reply.split("\n") if len(line) > 7]
    else:
        lines = [sentence + "." for sentence in reply.split(".") if len(sentence) > 7]
    for line in lines:
        parts = [part.strip(",") for part in line.split("seconds")]
        try:
            span = _guess(parts[0])
        except ValueError:
            continue
        if span is not None:
            return [((round(span[0], 2), round(span[1], 2)), parts[-1].strip())]
    return []


def _guess(text: str) -> Span | None:
    """A span of one or two times; a lone one has 20 s on both sides, or 40 s behind it where it is not later than 20 s."""
    ranges = _RANGE.findall(text)
    if ranges:
        return _floats(ranges)[0]
    colons = text.count(":")
    if colons in (1, 2):
        clocks = [_clock(found) for found in _CLOCK.findall(text)]
        if len(clocks) != colons:
            return None
        return (clocks[0], clocks[1]) if colons == 2 else _around(clocks[0])
    numbers = [float(found) for found in re.findall(rf"{_NUMBER}(?!\.)", text)]
    if len(numbers) == 1:
        return _around(numbers[0])
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def _around(t: float) -> Span:
    return (t - _RADIUS, t + _RADIUS) if t > _RADIUS else (t, t + 2 * _RADIUS)


def _clock(text: str) -> float:
    minutes, seconds = text.split(":")
    return float(int(minutes) * 60 + int(seconds))


def _floats(pairs: Iterable[tuple[str, str]]) -> list[Span]:
    return [(float(begin), float(end)) for begin, end in pairs]


def overlap(a: Span, b: Span) -> float:
    """Intersection over union as the official code of captions has it."""
    both = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    return both / ((a[1] - a[0]) + (b[1] - b[0]) - both + _SOFTEN)


def detection(said: Sequence[Caption], truth: Sequence[Span], threshold: float) -> tuple[float, float]:
    """Share of the captions said whose span overlaps a true one by more than the threshold, and of the true ones so met."""
    if not said:
        return 0.0, 0.0
    meets = [[overlap(span, other) > threshold for other in truth] for span, _ in said[:_MOST]]
    precision = sum(any(row) for row in meets) / len(meets)
    return precision, sum(any(column) for column in zip(*meets, strict=True)) / len(truth)


def likeness(said: Sequence[Caption], truth: Sequence[Caption], similarity: Similarity, name: str) -> float:
    """Mean similarity of captions, mean over the thresholds.

    Each is compared with every true one that its span overlaps at least so far; one that overlaps none with a row of random
    letters, as in the official code (here the same ones in every run).

    Args:
        name: of the reply; the letters depend on it alone.
    """
    if not said:
        return 0.0
    letters = random.Random(name)
    noise = ["".join(letters.choices(string.ascii_lowercase, k=letters.randint(10, 20))) for _ in said[:_MOST]]
    pairs: dict[tuple[str, str], None] = {}
    by_threshold = []
    for least in THRESHOLDS:
        compared = []
        for (span, text), random_text in zip(said, noise, strict=False):
            partners = [other for other_span, other in truth if overlap(span, other_span) >= least]
            compared += [(_plain(text), _plain(other)) for other in partners] or [(_plain(text), random_text)]
        pairs |= dict.fromkeys(compared)
        by_threshold.append(compared)
    known = dict(zip(pairs, similarity.compare(list(pairs)), strict=True))
    return sum(sum(known[pair] for pair in compared) / len(compared) for compared in by_threshold) / len(THRESHOLDS)


def _plain(text: str) -> str:
    """Lower case without punctuation and other scripts, about as the tokenizer of the official code leaves a caption."""
    return " ".join(re.findall(r"[a-z0-9']+", text.lower()))
