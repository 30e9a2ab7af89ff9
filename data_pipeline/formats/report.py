"""What became of the rows of an import."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXAMPLES = 20
"""Rows named for each reason."""


class RowError(Exception):
    """A row is dropped: a short reason that rows share, and the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass
class ImportReport:
    """Counts of rows, and the first ones that each reason struck."""

    rows: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """Reason -> rows."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> the first rows that it struck, with details."""
    missing_media: set[str] = field(default_factory=set)
    """Media paths, as written in the rows, that lead to no file."""

    def drop(self, error: RowError, where: str) -> None:
        """Count a row that is left out."""
        self.dropped[error.reason] += 1
        shown = self.examples.setdefault(error.reason, [])
        if len(shown) < EXAMPLES:
            shown.append(f"{where}: {error}")

    def why_none(self) -> str:
        """The reasons in a phrase, for a source of which no row can be used."""
        reasons = ", ".join(f"{reason} ({count})" for reason, count in self.dropped.most_common()) or "it holds no row"
        first = next((shown[0] for shown in self.examples.values()), "give a file with rows")
        return f"{reasons}; {first}"

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "rows": self.rows,
            "kept": self.kept,
            "dropped": dict(self.dropped.most_common()),
            "missing_media": sorted(self.missing_media),
            "examples": self.examples,
        }


def write_report(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Write JSON atomically."""
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
