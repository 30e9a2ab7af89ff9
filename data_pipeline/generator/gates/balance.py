"""Answers that are too frequent, and answers that can be guessed without the video: learnt instead of looking."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

Pairs = Sequence[tuple[str, str]]
"""(kind of question, answer) of a row, as `stages.seen.answered` gives them."""
_SMALL = 1e-9


@dataclass
class Answers:
    """How often each answer is given to each kind of question."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, pairs: Pairs) -> None:
        """Count the answers of a row."""
        for kind, text in pairs:
            self.counts.setdefault(kind, Counter())[text] += 1

    def blind_share(self, pairs: Pairs) -> float:
        """Share of the answers of a row, 0..1, that somebody expects to guess who knows all other rows and sees no video.

        An answer is guessed as often as the other rows give it to its kind of question. A kind that only this row has cannot be
        guessed. 0 where the row has no answer.
        """
        own = Counter(pairs)
        return sum(self._guessed(kind, text, own) for kind, text in pairs) / len(pairs) if pairs else 0.0

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

    def _guessed(self, kind: str, text: str, own: Counter[tuple[str, str]]) -> float:
        counts = self.counts[kind]
        others = counts.total() - sum(count for (k, _), count in own.items() if k == kind)
        return (counts[text] - own[kind, text]) / others if others else 0.0


def too_frequent(rows: Callable[[], Iterable[tuple[int, Pairs]]], most: float) -> set[int]:
    """Numbers of the rows to leave out so that no answer has a larger share of its kind than `most`; earlier rows stay.

    A row goes with all its answers, which may make those of another kind too frequent in their turn: counted again until
    nothing more is.

    Args:
        rows: gives (number, answers) of all rows, in the same order each time.
    """
    dropped: set[int] = set()
    while True:
        answers = Answers()
        for number, pairs in rows():
            if number not in dropped:
                answers.add(pairs)
        more = over_the_limit(((n, pairs) for n, pairs in rows() if n not in dropped), answers.allowed(most))
        if not more:
            return dropped
        dropped.update(more)


def over_the_limit(rows: Iterable[tuple[int, Pairs]], allowed: dict[tuple[str, str], int]) -> list[int]:
    """Numbers of the rows that are left out so that no answer comes more often than allowed; earlier rows stay."""
    given: Counter[tuple[str, str]] = Counter()
    dropped = []
    for number, pairs in rows:
        own = Counter(pairs)
        if any(key in allowed and given[key] + count > allowed[key] for key, count in own.items()):
            dropped.append(number)
        else:
            given.update(own)
    return dropped


def _limit(counts: Sequence[int], most: float) -> int:
    """The largest number at which rising counts can be cut off so that none exceeds a share of the sum that is left."""
    if len(counts) * most < 1 - _SMALL:
        return counts[0]
    low, high = counts[0], counts[-1]  # cut off at the least of them, all are equal
    while low < high:
        middle = (low + high + 1) // 2
        left = sum(min(count, middle) for count in counts)
        low, high = (middle, high) if middle <= most * left + _SMALL else (low, middle - 1)
    return low
