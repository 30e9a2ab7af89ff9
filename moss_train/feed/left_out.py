"""How many samples of each dataset the quarantine ledger lists, read as it grows."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path


class LeftOut:
    """Counts each sample once; only what was appended since the last look is read.

    Args:
        ledger: the file, which need not exist yet.
    """

    def __init__(self, ledger: Path) -> None:
        self._path = ledger
        self._read = 0  # bytes
        self._seen: set[tuple[str, str, str]] = set()
        self._counts: Counter[str] = Counter()

    def counts(self) -> dict[str, int]:
        """Samples left out so far, by dataset name."""
        if self._path.is_file() and self._path.stat().st_size > self._read:
            with self._path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    self._read += len(line)
                    self._note(line)
        return dict(sorted(self._counts.items()))

    def _note(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
            identity = (entry["dataset"], entry["shard"], entry["key"])
        except (ValueError, KeyError, TypeError):
            return  # the ledger's own reader speaks about damage
        if entry.get("kind") != "fatal" and identity not in self._seen:
            self._seen.add(identity)
            self._counts[identity[0]] += 1
