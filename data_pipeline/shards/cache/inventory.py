"""What a cache folder holds, and removing it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data_pipeline.shards.cache.entry import entries, remove_leftovers
from data_pipeline.shards.cache.warm import alone


@dataclass(frozen=True)
class Held:
    """One entry."""

    source: str
    folder: Path
    shards: int
    bytes: int
    last_used: float
    """Seconds since 1970."""
    in_use: bool


def held(cache: Path) -> list[Held]:
    """All entries, those used last first."""
    found = []
    for entry in entries(cache):
        described = entry.described()
        source = described.source if described is not None else "(of another version)"
        shards = sum(name.endswith(".tar") for name in entry.names())
        found.append(Held(source, entry.folder, shards, entry.size(), entry.last_used(), entry.in_use()))
    return sorted(found, key=lambda one: -one.last_used)


def clear(cache: Path, tell: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """Remove all entries that no run reads.

    Returns:
        Sources of those that are gone, and of those in use.

    Raises:
        InputError: the folder cannot be written.
    """
    gone: list[str] = []
    stayed: list[str] = []
    if not cache.is_dir():
        return gone, stayed
    with alone(cache, tell):
        remove_leftovers(cache)
        for entry in entries(cache):
            described = entry.described()
            source = described.source if described is not None else str(entry.folder)
            (gone if entry.remove() else stayed).append(source)
    return gone, stayed
