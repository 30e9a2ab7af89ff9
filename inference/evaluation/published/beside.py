"""What lmms-eval measured, beside the published figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.evaluation.published.table import PublishedRow, PublishedTable
from model.errors import InputError


@dataclass(frozen=True)
class BesideRow:
    """One benchmark: ours and theirs in the same unit."""

    published: PublishedRow
    ours: float | None
    """None where no result has the task."""
    stderr: float | None = None
    """Standard error as lmms-eval gives it, in the same unit; None where it gives none."""
    samples: int | None = None
    """Documents that were scored."""
    complete: bool = True
    """False where only some of the task's documents were asked (--limit): such a number is not to be compared."""

    def above(self, column: str) -> float | None:
        """Ours less theirs; None where one of them is missing."""
        theirs = self.published.figures[column]
        return None if self.ours is None or theirs is None else self.ours - theirs


def read_results(path: Path) -> dict[str, Any]:
    """A results file as lmms-eval writes it with --output_path (`*_results.json`).

    Raises:
        InputError: the file is missing or is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"results {path} do not exist") from None
    except ValueError as error:
        raise InputError(f"results {path} are no JSON ({error})") from None
    if not isinstance(content, dict) or not isinstance(content.get("results"), dict):
        raise InputError(f"{path} has no results by task; give the *_results.json that lmms-eval wrote")
    return content


def beside(table: PublishedTable, results: Sequence[Mapping[str, Any]]) -> list[BesideRow]:
    """A row for each benchmark of the table.

    Args:
        table: the published figures.
        results: contents of results files; where several have a task, the last of them counts.

    Raises:
        InputError: a result of a task of the table lacks its metric, or has something else than a number there.
    """
    return [_row(row, results) for row in table.rows]


def _row(row: PublishedRow, results: Sequence[Mapping[str, Any]]) -> BesideRow:
    content = next((content for content in reversed(results) if row.task in content["results"]), None)
    if content is None:
        return BesideRow(row, None)
    values = content["results"][row.task]
    name = f"{row.metric},{row.filter}"
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        keys = ", ".join(key for key in values if "," in key) or "none"
        raise InputError(f"the result of {row.task} has {value!r} for {name}; a number is needed (its metrics: {keys})")
    error = values.get(f"{row.metric}_stderr,{row.filter}")
    stderr = error * row.scale if isinstance(error, int | float) else None
    counts = (content.get("n-samples") or {}).get(row.task) or {}
    samples, original = counts.get("effective"), counts.get("original")
    complete = samples is None or original is None or samples == original
    return BesideRow(row, value * row.scale, stderr, samples, complete)


def text_table(table: PublishedTable, rows: Sequence[BesideRow], label: str = "ours") -> str:
    """Aligned text: one line for each benchmark, `-` where there is no number, `*` behind a number of a part of the task."""
    lines = [["benchmark", "task", label, *table.columns]]
    for row in rows:
        ours = "-" if row.ours is None else f"{row.ours:.2f}{'' if row.complete else '*'}"
        theirs = ["-" if figure is None else f"{figure:.2f}" for figure in row.published.figures.values()]
        lines.append([row.published.name, row.published.task, ours, *theirs])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*body, f"{table.columns[0]} and the others: {table.source}, {table.certainty}."]) + "\n"
