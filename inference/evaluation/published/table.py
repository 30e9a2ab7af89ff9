"""The table of published figures: reading, checking, naming its tasks."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.errors import InputError

REFERENCE = Path(__file__).with_name("reference.json")
"""The published table of MOSS-Video-Preview."""
TASKS = Path(__file__).with_name("tasks")
"""For lmms-eval's --include_path; the group `moss_published` has every task of the reference's table."""
GROUP = "moss_published"


@dataclass(frozen=True)
class PublishedRow:
    """One benchmark."""

    name: str
    kind: str
    """image or video."""
    task: str
    """Task id of lmms-eval."""
    metric: str
    """Key of its result."""
    filter: str
    """lmms-eval's filter of answers, `none` where the task has none."""
    scale: float
    """lmms-eval's number times this is in the unit of the figures."""
    figures: dict[str, float | None]
    """By column; None where nothing is published."""
    note: str = ""
    """What is not stated, or what the task needs."""


@dataclass(frozen=True)
class PublishedTable:
    """Figures of several systems."""

    title: str
    source: str
    certainty: str
    """How the figures were read."""
    harness: str
    """The version whose task ids and metrics these are."""
    columns: list[str]
    rows: list[PublishedRow]

    @property
    def tasks(self) -> list[str]:
        """Task ids in the order of the rows: `--tasks ",".join(table.tasks)`."""
        return [row.task for row in self.rows]


def load_table(path: Path = REFERENCE) -> PublishedTable:
    """A table from its JSON file.

    Raises:
        InputError: the file is missing, is no such table, names a benchmark or a task twice, or has a figure that is no number.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [PublishedRow(**row) for row in content.pop("rows")]
        table = PublishedTable(**content, rows=rows)
    except FileNotFoundError:
        raise InputError(f"table {path} does not exist") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is no table of published figures ({error}); its form is that of {REFERENCE.name}") from None
    for row in table.rows:
        _check_row(row, table.columns, path)
    for what, names in (("benchmark", [row.name for row in rows]), ("task", table.tasks)):
        for name, count in Counter(names).items():
            if count > 1:
                raise InputError(f"{path} has the {what} {name} {count} times; leave one")
    return table


def _check_row(row: PublishedRow, columns: list[str], path: Path) -> None:
    if list(row.figures) != columns:
        raise InputError(f"{path}: {row.name} has figures of {', '.join(row.figures)}; it must have {', '.join(columns)}")
    if row.kind not in ("image", "video"):
        raise InputError(f"{path}: {row.name} is of kind {row.kind!r}; use image or video")
    if not _is_number(row.scale) or row.scale <= 0:
        raise InputError(f"{path}: {row.name} has scale {row.scale!r}; it must be a number above 0")
    for column, figure in row.figures.items():
        if figure is not None and not (_is_number(figure) and figure >= 0):
            raise InputError(f"{path}: {row.name} has {figure!r} for {column}; it must be a number of at least 0, or null")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
