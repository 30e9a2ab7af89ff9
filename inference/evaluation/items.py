"""What scorers say of one question, span or stream; every table, interval and comparison is made of these."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference.evaluation.storage import write_lines
from model.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that was judged."""

    suite: str
    scenario_id: str
    item: str
    """Its name within the scenario: q3, span0, poll1, stream."""
    task: str
    """What tables are split by."""
    mode: str
    """push | poll | offline | teacher: how the model was run."""
    values: dict[str, float] = field(default_factory=dict)
    """Numbers of this item alone, from which a suite's `aggregate` makes its metrics: right = 1, hits = 3, seconds = 12.5."""
    series: dict[str, list[float]] = field(default_factory=dict)
    """Lists of numbers, where a median or quantile over all items is wanted."""
    details: dict[str, Any] = field(default_factory=dict)
    """For people: question, truth, reply, verdicts of parsers and judges."""

    @property
    def cluster(self) -> str:
        """Items of one cluster are not independent: resampling takes or leaves them together."""
        return str(self.details.get("cluster", self.scenario_id))


Metrics = dict[str, float | None]
"""Flat names such as `forward.push.accuracy`; None where nothing was asked."""


def save_items(path: Path, items: Iterable[Item]) -> None:
    """Write them as JSON lines, atomically."""
    write_lines(path, (json.dumps(dataclasses.asdict(item), ensure_ascii=False) for item in items))


def load_items(path: Path) -> list[Item]:
    """Read what `save_items` wrote.

    Raises:
        InputError: the file is missing or a line is no item.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give a folder that `moss eval` wrote") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(Item(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} line {number} is no item ({error}); run `moss eval score` again") from error
    return found
