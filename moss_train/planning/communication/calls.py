"""The words of the communication model: calls of one kind in one group, and what of them passes a link. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

Kind = Literal[
    "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "exchange", "broadcast", "reduce", "send", "receive", "barrier"
]
"""`exchange` is an all-to-all of uneven parts in which nothing is sent to oneself."""
KINDS: tuple[Kind, ...] = get_args(Kind)


class Key(NamedTuple):
    """What calls are told apart by."""

    purpose: str
    kind: Kind
    group: str
    ranks: int
    """Of the group."""


@dataclass(frozen=True)
class Calls:
    """Some calls of one rank."""

    count: float = 0
    gives: float = 0
    """Bytes of the tensors that it hands in."""
    gets: float = 0
    """Bytes of the tensors that it has afterwards."""

    def __add__(self, other: Calls) -> Calls:
        return Calls(self.count + other.count, self.gives + other.gives, self.gets + other.gets)

    @property
    def payload(self) -> float:
        """Bytes of the larger side: the whole tensor of a sum, a gather or a scatter."""
        return max(self.gives, self.gets)


def on_wire(key: Key, calls: Calls) -> float:
    """Bytes that pass the link of a rank in its busier direction, with the ring algorithms; a tree's sums move as much."""
    n = key.ranks
    if key.kind == "all-reduce":
        return 2 * (n - 1) / n * calls.payload
    if key.kind in ("all-gather", "reduce-scatter", "all-to-all"):
        return (n - 1) / n * calls.payload
    return calls.payload


class Traffic:
    """Calls of one rank by purpose, kind and group."""

    def __init__(self) -> None:
        self._calls: dict[Key, Calls] = {}

    def add(self, purpose: str, kind: Kind, group: str, ranks: int, calls: Calls) -> None:
        """Add calls; those of a group of one rank are none."""
        if ranks > 1 and calls.count:
            key = Key(purpose, kind, group, ranks)
            self._calls[key] = self._calls.get(key, Calls()) + calls

    def get(self, key: Key) -> Calls:
        """The calls of a key; none where there are none."""
        return self._calls.get(key, Calls())

    def as_json(self) -> list[list[Any]]:
        """Plain values."""
        return [[*key, calls.count, calls.gives, calls.gets] for key, calls in self]

    @classmethod
    def of(cls, content: list[list[Any]]) -> Traffic:
        """From `as_json`."""
        traffic = cls()
        for purpose, kind, group, ranks, *calls in content:
            traffic.add(purpose, kind, group, ranks, Calls(*calls))
        return traffic

    def __iter__(self) -> Iterator[tuple[Key, Calls]]:
        """In the order of the keys."""
        return iter(sorted(self._calls.items()))
