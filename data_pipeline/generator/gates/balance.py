"""Answers that are too frequent, and answers that can be guessed without the video: learnt instead of looking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

Pairs = Sequence[tuple[str, str]]
"""(kind of question, answer) of a row, as `stages.seen.answered` gives them."""


@dataclass
class Answers:
    """How often each answer is given to each kind of question."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, pairs: Pairs) -> None:
        """Count the answers of a row."""
        for kind, text in pairs:
            self.counts.setdefault(kind, Counter())[text] += 1

    def guess(self, kind: str) -> str:
        """The most frequent answer; of several the first in order of the alphabet."""
        counts = self.counts.get(kind)
        return min(counts, key=lambda text: (-counts[text], text)) if counts else ""

    def blind_share(self, pairs: Pairs) -> float:
        """Share of the answers of a row, 0..1, that somebody gives who sees no video; 0 where it has none."""
        return sum(self.guess(kind) == text for kind, text in pairs) / len(pairs) if pairs else 0.0

    def allowed(self, most: float) -> dict[tuple[str, str], int]:
        """How often answers may be given so that none has a larger share of its kind than `most`.

        Answers that may always be given are left out. A kind with too few different ones for that keeps as many of each as its
        rarest one has.
        """
        found: dict[tuple[str, str], int] = {}
        for kind, counts in self.counts.items():
            limit = _limit(sorted(counts.values()), most)
            found |= {(kind, text): limit for text, count in counts.items() if count > limit}
        return found


def _limit(counts: Sequence[int], most: float) -> int:
    """The largest number at which counts can be cut off so that none exceeds a share of the sum that is left."""
    if len(counts) * most < 1:
        return counts[0]
    low, high = 0, counts[-1]
    while low < high:
        middle = (low + high + 1) // 2
        left = [min(count, middle) for count in counts]
        low, high = (middle, high) if left[-1] <= most * sum(left) else (low, middle - 1)
    return max(1, low)


def over_the_limit(rows: Iterable[Pairs], allowed: dict[tuple[str, str], int]) -> list[int]:
    """Numbers of the rows that are left out so that no answer comes more often than allowed; earlier rows stay."""
    given: Counter[tuple[str, str]] = Counter()
    dropped = []
    for number, pairs in enumerate(rows):
        keys = [(kind, text) for kind, text in pairs]
        if any(key in allowed and given[key] + keys.count(key) > allowed[key] for key in keys):
            dropped.append(number)
        else:
            given.update(keys)
    return dropped
