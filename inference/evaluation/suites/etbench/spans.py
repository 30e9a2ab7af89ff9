"""Times in replies, and how far spans agree."""

from __future__ import annotations

import re
from collections.abc import Sequence

Span = tuple[float, float]

THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
"""IoU from which a span counts as found; the benchmark's figures are means over these."""

_NUMBER = r"(\d+\.*\d*)"
_CLOCK = r"(?:(\d{1,2}):)?(\d{1,2}):(\d{2}(?:\.\d+)?)"
_SECONDS = r"\d+(?:\.\d+)?(?:\s*(?:s|secs?|seconds?))?\b"
_STRICT = re.compile(rf"({_CLOCK}|{_SECONDS})\s*(?:-|–|to|and)\s*({_CLOCK}|{_SECONDS})", re.IGNORECASE)


def official_spans(reply: str) -> list[Span]:
    """All spans that the official reader finds (`tvg_format` of compute_metrics.py).

    Pairs with a hyphen; else pairs with "to"; else the first number of each sentence that speaks of start, end or happen, two by
    two; else such times as h:mm:ss. The end may come first.
    """
    text = reply.lower()
    for pattern in (rf"{_NUMBER}\s*-\s*{_NUMBER}", rf"{_NUMBER}\s* to \s*{_NUMBER}"):
        pairs = [pair for pair in (_floats(found) for found in re.findall(pattern, text)) if pair is not None]
        if pairs:
            return [(min(pair), max(pair)) for pair in pairs]
    told = [part for part in re.split(r"[!?\n]", text) if any(word in part for word in ("start", "end", "happen"))]
    numbers = [re.search(r"\b(\d+\.\d+\b|\b\d+)\b", part) for part in told]
    spans = _two_by_two([float(found[1]) for found in numbers if found])
    if spans:
        return spans
    clocks = [re.search(r"\b(\d{1,2}):(\d{2}):(\d{2})\b", part) for part in told]
    return _two_by_two([3600.0 * int(c[1]) + 60.0 * int(c[2]) + int(c[3]) for c in clocks if c])


def _floats(pair: tuple[str, str]) -> Span | None:
    try:
        return float(pair[0]), float(pair[1])
    except ValueError:  # 1..2
        return None


def _two_by_two(times: Sequence[float]) -> list[Span]:
    pairs = zip(times[::2], times[1::2], strict=False)
    return [(min(pair), max(pair)) for pair in pairs]


def strict_spans(reply: str) -> list[Span]:
    """Spans that a reply states as a beginning and a later end: `3 - 7.5 seconds`, `from 0:03 to 1:10`; nothing is guessed."""
    found = []
    for match in _STRICT.finditer(reply):
        begin, end = _seconds(match[1]), _seconds(match[5])
        if begin <= end:
            found.append((begin, end))
    return found


def _seconds(text: str) -> float:
    seconds = 0.0
    for part in re.sub(r"[^\d.:]", "", text).split(":"):
        seconds = 60 * seconds + float(part)
    return seconds


def overlap(a: Span, b: Span) -> float:
    """Intersection over union."""
    both = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    whole = (a[1] - a[0]) + (b[1] - b[0]) - both
    return both / whole if whole > 0 else 0.0


def detection_f1(found: Sequence[Span], truth: Sequence[Span], threshold: float) -> float:
    """F1 of the share of true spans that any found one meets and the share of found ones that meet any true one."""
    meets = [[overlap(a, b) >= threshold for b in truth] for a in found]
    precision = sum(any(row) for row in meets) / len(found)
    recall = sum(any(row[i] for row in meets) for i in range(len(truth))) / len(truth)
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def seconds_f1(found: Sequence[Span], truth: Sequence[Span]) -> float:
    """F1 of whole seconds that are covered, the first thousand of the video, ends rounded."""
    ours, theirs = _covered(found), _covered(truth)
    both = len(ours & theirs)
    return 2 * both / (len(ours) + len(theirs)) if both else 0.0


def _covered(spans: Sequence[Span]) -> set[int]:
    return {second for begin, end in spans for second in range(max(0, round(begin)), min(1000, round(end)))}
