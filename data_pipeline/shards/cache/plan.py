"""What is copied, what stays at the source, and what has to go: the same rule on every node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

RESERVE = 0.05
"""Share of the disk that stays free."""
GIB = 2**30


@dataclass(frozen=True)
class Disk:
    """Bytes of the disk that holds the cache."""

    total: int
    free: int


@dataclass(frozen=True)
class Unit:
    """Files that are copied together: a shard with its index, or what lies beside the shards."""

    key: str
    """Name of the entry."""
    name: str
    """Of the shard; empty for what lies beside them."""
    bytes: int
    """On the disk, at most."""


@dataclass(frozen=True)
class Old:
    """An entry that this run has no use for."""

    key: str
    bytes: int
    last_used: float
    in_use: bool


def most(disk: Disk, held: int, max_gib: float) -> int:
    """Bytes that all copies may take.

    Args:
        held: bytes that they take now.
        max_gib: limit of the configuration; 0 is none. The reserve holds beside it.
    """
    by_disk = disk.free + held - int(disk.total * RESERVE)
    return max(0, min(by_disk, int(max_gib * GIB)) if max_gib else by_disk)


def choose(units: Sequence[Unit], room: int) -> list[Unit]:
    """In order, every unit that still fits."""
    chosen = []
    for unit in units:
        if unit.bytes <= room:
            chosen.append(unit)
            room -= unit.bytes
    return chosen


def evict(old: Sequence[Old], room: int) -> list[str]:
    """Keys of the entries that have to go, least recently used first, so that the others fit; never one that is in use."""
    room -= sum(entry.bytes for entry in old if entry.in_use)
    idle = sorted((entry for entry in old if not entry.in_use), key=lambda entry: (entry.last_used, entry.key))
    left = sum(entry.bytes for entry in idle)
    gone = []
    for entry in idle:
        if left <= room:
            break
        gone.append(entry.key)
        left -= entry.bytes
    return gone
