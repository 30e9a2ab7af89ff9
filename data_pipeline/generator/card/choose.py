"""Which rows are shown: some of each behaviour, the same ones for the same seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.generator.card.collect import read_lines
from data_pipeline.realtime.dialogue import Dialogue
from data_pipeline.realtime.values import dialogue_from_dict
from data_pipeline.timeline.timeline import Timeline
from data_pipeline.timeline.values import timeline_from_dict

MOST_ROWS = 20_000
"""Rows that are looked through at most, so that a card of many rows takes as long as one of few."""


@dataclass(frozen=True)
class Chosen:
    """A row that is shown."""

    behaviour: str
    """For which it was chosen."""
    part: Path
    dialogue: Dialogue
    timeline: Timeline | None
    """What it was made from, where the part keeps it."""


def choose_rows(parts: Sequence[Path], behaviours: Iterable[str], each: int, seed: int) -> list[Chosen]:
    """Rows of `rows.jsonl` of parts in a drawn order, by behaviour.

    Args:
        behaviours: those that the build holds, in the order in which they are shown.
        each: rows of a behaviour at most. A row is shown once, under the first behaviour that it was chosen for.

    Raises:
        InputError: a file of a part is damaged.
    """
    wanted = list(behaviours)
    order = list(parts)
    random.Random(seed).shuffle(order)
    ranked: dict[str, list[tuple[str, Path, dict[str, Any]]]] = {name: [] for name in wanted}
    looked_at = 0
    for part in order:
        for row in read_lines(part / "rows.jsonl"):
            looked_at += 1
            _rank(ranked, part, row, each, seed)
        if looked_at >= MOST_ROWS or (looked_at and all(len(found) >= each for found in ranked.values())):
            break
    chosen: list[Chosen] = []
    taken: set[str] = set()
    timelines = _Timelines()
    for name in wanted:
        for _, part, row in [one for one in ranked[name] if str(one[2].get("id")) not in taken][:each]:
            dialogue = dialogue_from_dict(row, f"{part / 'rows.jsonl'} row {row.get('id')}")
            taken.add(dialogue.id)
            chosen.append(Chosen(name, part, dialogue, timelines.find(part, dialogue)))
    return chosen


def _rank(
    ranked: dict[str, list[tuple[str, Path, dict[str, Any]]]], part: Path, row: dict[str, Any], each: int, seed: int
) -> None:
    """Keep the rows with the smallest digests: more than are shown, since other behaviours may take some of them."""
    drawn = hashlib.blake2b(f"{seed} {row.get('id')}".encode(), digest_size=8).hexdigest()
    behaviours = row.get("behaviours", [])
    for name in behaviours if isinstance(behaviours, list) else []:
        if name in ranked:
            ranked[name] = sorted([*ranked[name], (drawn, part, row)], key=lambda one: one[0])[: 4 * each]


class _Timelines:
    """Timelines of the parts that were needed so far."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, dict[str, Any]]] = {}

    def find(self, part: Path, dialogue: Dialogue) -> Timeline | None:
        if part not in self._known:
            self._known[part] = {str(line.get("id")): line for line in read_lines(part / "timelines.jsonl")}
        values = self._known[part].get(dialogue.timeline)
        return None if values is None else timeline_from_dict(values, f"{part / 'timelines.jsonl'} {dialogue.timeline}")
