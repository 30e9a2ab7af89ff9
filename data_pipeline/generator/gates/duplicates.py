"""Rows that are nearly the same, found by MinHash in memory that holds a few numbers for each row.

A. Broder, On the resemblance of documents (1997): the share of equal minima of two sets under random permutations estimates the
share of their elements that they have in common. Rows that fall into one bucket of a band are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.realtime.dialogue import Dialogue

SIGNATURES = "signatures.bin"
MINIMA = 64
"""Numbers of a signature; the estimate's standard error is at most 1 / 16."""
BANDS = 16
"""Rows are compared that agree in all four numbers of one: at a common share of 0.5 two of three pairs are, at 0.7 99 of 100."""
COMPARED = 200
"""Rows of a bucket that a row is compared with at most, the latest ones: many short rows share a band without being alike."""
_SHINGLE = 3
"""Words that form an element together."""
_KEYS = np.random.default_rng(20260101).integers(0, 1 << 64, MINIMA, dtype=np.uint64)
"""Of the hash functions."""
_ROUNDS = ((np.uint64(33), np.uint64(0xFF51AFD7ED558CCD)), (np.uint64(33), np.uint64(0xC4CEB9FE1A85EC53)))
"""Shifts and odd factors of a mixing function of 64 bits."""

Array = np.ndarray[Any, Any]


def signature(dialogue: Dialogue) -> Array:
    """uint32 [64] of what is said in a dialogue, by whom, about which video (the second of it does not count)."""
    texts = [f"u {user.text}" for user in dialogue.users] + [f"a {u.text}" for u in dialogue.utterances]
    words = " | ".join(texts).lower().split()
    elements = {" ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1))}
    return minima(elements)


def minima(elements: Iterable[str]) -> Array:
    """uint32 [64]: the least hash of the elements under each of 64 fixed functions."""
    hashes = np.array([int.from_bytes(hashlib.blake2b(e.encode(), digest_size=8).digest()) for e in elements], dtype=np.uint64)
    mixed = hashes[None, :] ^ _KEYS[:, None]
    for shift, factor in _ROUNDS:  # the upper bits come to depend on all of them
        mixed ^= mixed >> shift
        mixed *= factor
    least: Array = mixed.min(1) >> np.uint64(32)
    return least.astype(np.uint32)


class SignatureFile:
    """The signatures of a part, one behind the other in the order of its rows."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def add(self, dialogue: Dialogue) -> None:
        """Append one."""
        self._file.write(signature(dialogue).astype("<u4").tobytes())

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


def read_signatures(paths: Sequence[Path]) -> Array:
    """uint32 [rows, 64] of parts in order."""
    parts = [np.fromfile(path, dtype="<u4").reshape(-1, MINIMA) for path in paths]
    return np.concatenate(parts) if parts else np.zeros((0, MINIMA), dtype=np.uint32)


def near_duplicates(signatures: Array, threshold: float) -> dict[int, int]:
    """Row -> an earlier row of which it is nearly a copy; the first of each family is in no key.

    Args:
        signatures: uint32 [rows, 64].
        threshold: least estimated share of common elements.
    """
    parent: dict[int, int] = {}
    first: dict[bytes, int] = {}
    for row, numbers in enumerate(signatures):  # equal ones first: there may be any number of them
        earlier = first.setdefault(hashlib.blake2b(numbers.tobytes(), digest_size=16).digest(), row)
        if earlier != row:
            parent[row] = earlier
    width = MINIMA // BANDS
    for band in range(BANDS):
        keys = _band_keys(signatures[:, band * width : (band + 1) * width])
        for bucket in _buckets(keys):
            _compare(bucket, signatures, threshold, parent)
    return parent


def _compare(bucket: Sequence[int], signatures: Array, threshold: float, parent: dict[int, int]) -> None:
    """Enter the rows of a bucket that resemble an earlier one of it that stays."""
    rows = [row for row in bucket if row not in parent]
    stored = signatures[rows]
    kept: list[int] = []
    for place, row in enumerate(rows):
        latest = kept[-COMPARED:]
        if latest:
            alike = (stored[latest] == stored[place]).mean(1)
            best = int(alike.argmax())
            if alike[best] >= threshold:
                parent[row] = rows[latest[best]]
                continue
        kept.append(place)


def _band_keys(columns: Array) -> Array:
    """uint64 [rows]: rows with equal columns have equal keys, others nearly never."""
    keys = np.zeros(len(columns), dtype=np.uint64)
    for column in columns.T:
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + column.astype(np.uint64) + np.uint64(1)
    return keys


def _buckets(keys: Array) -> Iterator[list[int]]:
    """Rows with one key, in ascending order, where there are several."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    edges = np.flatnonzero(np.diff(ordered)) + 1
    for bucket in np.split(order, edges):
        if len(bucket) > 1:
            yield sorted(int(i) for i in bucket)
