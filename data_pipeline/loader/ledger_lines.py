"""The lines of a quarantine ledger: one JSON object for each sample that was left out."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

BAD, SKIPPED, FATAL = "bad", "skipped", "fatal"
"""A sample that cannot be used; one that does not fit the stage; why reading stopped."""
READ, PLAN, DECODE = "read", "plan", "decode"
STAGES = (READ, PLAN, DECODE)
"""Where a sample was left out: read from its shard and parsed, laid out as tokens, or its media decoded."""

FIELDS = ("kind", "dataset", "shard", "key")


def identity(entry: dict[str, Any]) -> tuple[str, ...]:
    """What makes two entries the same."""
    return tuple(entry[name] for name in FIELDS)


def format_line(entry: dict[str, str]) -> bytes:
    """One line with its end."""
    # of a name that is no UTF-8, backslashreplace makes a valid JSON escape
    return (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def parse_lines(content: bytes) -> list[dict[str, Any]]:
    """All entries; a line that was cut when its process ended is none."""
    entries = []
    for line in content.split(b"\n"):
        with suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in FIELDS):
                entries.append(entry)
    return entries
