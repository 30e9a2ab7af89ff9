"""Samples that are left out untried, because another run could not use them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipeline.loader.ledger_lines import BAD, FATAL, READ, SKIPPED, STAGES
from model.errors import InputError


class SkipList:
    """Bad samples of a ledger, each with the point at which it was left out.

    Left out at the same points, they leave the same packs: a sample that fails only when decoded has taken its place in a
    pack, one that cannot be read has not.
    """

    def __init__(self, entries: Iterable[dict[str, Any]] = ()) -> None:
        self._points: dict[tuple[str, str, str], str] = {}
        for entry in entries:
            identity = (entry["dataset"], entry.get("shard", ""), entry["key"])
            point = entry.get("at", READ)
            self._points[identity] = min(point, self._points.get(identity, point), key=STAGES.index)

    @classmethod
    def read(cls, path: str | None) -> SkipList:
        """The `bad` entries of a ledger; of a line written by hand only `dataset` and `key` are needed.

        Raises:
            InputError: the file is missing, or a line is no entry.
        """
        if path is None:
            return cls()
        try:
            lines = Path(path).read_bytes().splitlines()
        except OSError as error:
            raise InputError(
                f"data.skip_samples: {path} cannot be read ({error.strerror}); give the quarantine.jsonl of another run"
            ) from None
        entries = [_entry(line, f"data.skip_samples: line {n} of {path}") for n, line in enumerate(lines, 1) if line.strip()]
        return cls(e for e in entries if e.get("kind", BAD) == BAD)

    def joined(self, other: SkipList) -> SkipList:
        """The samples of both; of one that both name, the earlier point counts."""
        both = SkipList()
        both._points = dict(self._points)
        for identity, point in other._points.items():
            both._points[identity] = min(point, both._points.get(identity, point), key=STAGES.index)
        return both

    def names(self, dataset: str, shard: str, key: str, at: str) -> bool:
        """Whether the sample is to be left out at this point."""
        if not self._points:
            return False
        point = self._points.get((dataset, shard, key)) or self._points.get((dataset, "", key))
        return point == at


def _entry(line: bytes, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is cut or no JSON; complete or delete the line") from None
    if not isinstance(entry, dict):
        raise InputError(f"{where} is no JSON object; complete or delete the line")
    kind, at = entry.get("kind", BAD), entry.get("at", READ)
    if kind not in (BAD, SKIPPED, FATAL):
        raise InputError(f"{where} has the kind {kind!r}; use {BAD}, or {SKIPPED} or {FATAL} for an entry without effect")
    if kind == BAD and at not in STAGES:
        raise InputError(f"{where} has at = {at!r}; use one of {', '.join(STAGES)}")
    for name in ("dataset", "key", "shard"):
        value = entry.get(name, "" if name == "shard" else None)
        if not isinstance(value, str) or (kind == BAD and name != "shard" and not value):
            raise InputError(f"{where} has {name} = {value!r}; give the {name} as text")
    return entry
