"""`metrics.jsonl`: one JSON object a line, for updates and held-out evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TextIO

from moss_train.checkpoint.description import write_atomically
from moss_train.monitors.base import Monitor


class MetricsFile(Monitor):
    """Appends records. A continued run first drops the lines of updates that it is going to repeat."""

    def __init__(self, path: Path, every: int) -> None:
        self._path = path
        self._every = every
        self._file: TextIO | None = None

    def started(self, step: int, steps: int) -> None:
        self._steps = steps
        if self._path.is_file():
            lines = self._path.read_text().splitlines(keepends=True)
            kept = [line for line in lines if _step_of(line) <= step] if step else []
            if len(kept) < len(lines):
                write_atomically(self._path, "".join(kept))
        self._file = self._path.open("a")

    def stepped(self, record: dict[str, Any]) -> None:
        if record["step"] % self._every == 0 or record["step"] == self._steps:
            self._write(record)

    def evaluated(self, record: dict[str, Any]) -> None:
        self._write(record)

    def finished(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, record: dict[str, Any]) -> None:
        assert self._file is not None
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()


def _step_of(line: str) -> float:
    """Step of a line; infinity for a line cut off by a crash, which is dropped."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
