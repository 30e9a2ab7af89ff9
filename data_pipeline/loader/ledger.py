"""The quarantine ledger: every sample that was left out, why, and when that is too many."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from megatron.energon.errors import FatalSampleError

from model.errors import InputError

BAD, SKIPPED, FATAL = "bad", "skipped", "fatal"


class Ledger:
    """A JSON-lines file that all loader workers of a run append to.

    Lines hold `dataset, shard, key, reason` and `kind`: `bad` samples could not be read and count against the
    budget, `skipped` ones do not fit the stage, `fatal` says why reading stopped. A sample counts once, even where ranks that
    read the same data enter it at the same moment.
    """

    def __init__(self, path: Path, budget: int) -> None:
        self.path = path
        self.budget = budget
        self._known: set[tuple[str, str, str]] = set()
        self._offset = path.stat().st_size if path.is_file() else 0

    def add(self, dataset: str, shard: str, key: str, reason: str, kind: str = BAD) -> None:
        """Enter one sample.

        Raises:
            FatalSampleError: the budget is used up; `raise_fatal` tells the caller's process why.
        """
        identity = (dataset, shard, key)
        if identity in self._known:
            return
        entries = self.entries()
        self._known = {(e["dataset"], e["shard"], e["key"]) for e in entries if e["kind"] != FATAL}
        if identity in self._known:
            return
        self._append({"kind": kind, "dataset": dataset, "shard": shard, "key": key, "reason": reason})
        self._known.add(identity)
        bad = len({(e["dataset"], e["shard"], e["key"]) for e in entries if e["kind"] == BAD}) + (kind == BAD)
        if kind == BAD and bad > self.budget:
            self.stop(
                f"{bad} samples could not be read, more than data.max_bad_samples = {self.budget}; the latest is "
                f"{dataset}/{key} in {shard}: {reason}. All are listed in {self.path}"
            )

    def stop(self, reason: str) -> None:
        """End reading, in whatever process this is."""
        self._append({"kind": FATAL, "dataset": "", "shard": "", "key": "", "reason": reason})
        raise FatalSampleError(reason)

    def raise_fatal(self) -> None:
        """Raise what a worker wrote before it ended.

        Raises:
            InputError: reading was stopped since this ledger was opened.
        """
        for entry in reversed(self.entries(self._offset)):
            if entry["kind"] == FATAL:
                raise InputError(entry["reason"]) from None

    def entries(self, offset: int = 0) -> list[dict[str, Any]]:
        """All lines from a byte offset on."""
        if not self.path.is_file():
            return []
        with self.path.open("rb") as file:
            file.seek(offset)
            return [json.loads(line) for line in file.read().splitlines() if line]

    def _append(self, entry: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, line.encode("utf-8"))  # one write: lines of several workers do not mix
        finally:
            os.close(descriptor)
