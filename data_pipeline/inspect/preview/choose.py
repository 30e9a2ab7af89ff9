"""Which samples of a source are looked at."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from data_pipeline.inspect.entries import Entry, parts_of, read_entries, spread
from model.errors import InputError


def by_key(source: str, keys: Sequence[str]) -> list[Entry]:
    """The samples with these keys, in the order of `keys`.

    Raises:
        InputError: a key is not in the source.
    """
    wanted, found = set(keys), {}
    for part in parts_of(source):
        for entry in read_entries(part):
            if entry.key in wanted:
                found[entry.key] = entry
        if len(found) == len(wanted):
            break
    missing = sorted(wanted - set(found))
    if missing:
        raise InputError(f"{source} has no sample {', '.join(missing)}; `moss data info {source} --show 5` prints some keys")
    return [found[key] for key in keys]


def evenly(source: str, count: int) -> list[Entry]:
    """At most `count` samples: the first ones of shards that are evenly spaced over the source."""
    parts = spread(parts_of(source), count)
    each = -(-count // len(parts))
    return list(itertools.islice(_firsts(parts, each), count))


def _firsts(parts: Sequence, each: int) -> Iterator[Entry]:  # type: ignore[type-arg]
    for part in parts:
        yield from itertools.islice(read_entries(part), each)
