"""Counted beside planned: what of a case differs on which rank, and the table. Imports no torch."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from moss_train.planning.communication.calls import Calls, Key, Traffic
from moss_train.verify.communication.case import Case

MODULE = "moss_train.verify.communication.ranks"
HEADER = ("layout", "purpose", "kind", "group", "calls", "bytes counted", "bytes planned")


@dataclass(frozen=True)
class Row:
    """Calls of one kind on the rank of a case that counted most of them."""

    key: Key
    counted: Calls
    planned: Calls
    differs: tuple[int, ...]
    """Ranks on which the two are not equal."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.key._asdict(), "counted": vars(self.counted), "planned": vars(self.planned), "differs": self.differs}


@dataclass(frozen=True)
class Result:
    """A case."""

    case: Case
    rows: tuple[Row, ...]

    @property
    def reasons(self) -> list[str]:
        """One sentence for each kind of calls that the plan has otherwise."""
        return [
            f"{self.case.words}: {row.key.purpose} {row.key.kind} in group {row.key.group}: counted {_said(row.counted)}, "
            f"planned {_said(row.planned)} (ranks {', '.join(map(str, row.differs))})"
            for row in self.rows
            if row.differs
        ]


def _said(calls: Calls) -> str:
    return f"{calls.count:g} calls of {calls.gives:,.0f} bytes in and {calls.gets:,.0f} out"


def result_of(content: dict[str, Any]) -> Result:
    """From what the ranks answered."""
    counted, planned = ([Traffic.of(rank[name]) for rank in content["ranks"]] for name in ("counted", "planned"))
    keys = sorted({key for traffic in (*counted, *planned) for key, _ in traffic})
    rows = []
    for key in keys:
        pairs = [(c.get(key), p.get(key)) for c, p in zip(counted, planned, strict=True)]
        differs = tuple(rank for rank, (c, p) in enumerate(pairs) if c != p)
        shown = max((pairs[rank] for rank in differs or range(len(pairs))), key=lambda pair: pair[0].payload)
        rows.append(Row(key, *shown, differs))
    return Result(Case.of(content["case"]), tuple(rows))


Answer = Callable[..., Any]


def count_cases(cases: Sequence[Case], answer: Answer, progress: Callable[[Result], None] = lambda result: None) -> list[Result]:
    """Counts every case on ranks of its own number, the smallest first.

    Args:
        cases: what to count.
        answer: `moss_train.parallel.spawn.run_on_ranks`.
        progress: called with every result.

    Raises:
        InputError: a layout that the tiny model does not fit.
    """
    found: list[Result] = []
    for ranks, group in groupby(sorted(cases, key=lambda case: case.ranks), key=lambda case: case.ranks):
        with tempfile.TemporaryDirectory(prefix="moss_communication_") as scratch:
            request = Path(scratch) / "request.json"
            request.write_text(json.dumps([vars(case) for case in group]), encoding="utf-8")

            def tell(content: Any) -> None:
                progress(result_of(content))

            found += [result_of(content) for content in answer(MODULE, ranks, [request], device="cpu", on_progress=tell)]
    return found


def cells(result: Result) -> list[tuple[str, ...]]:
    """Rows under `HEADER`."""
    return [
        (
            result.case.words, row.key.purpose, row.key.kind, f"{row.key.group} of {row.key.ranks}", f"{row.counted.count:g}",
            f"{row.counted.payload:,.0f}", f"{row.planned.payload:,.0f}",
        )
        for row in result.rows
    ]  # fmt: skip


def as_text(results: Sequence[Result]) -> str:
    """Aligned columns; what differs is marked."""
    lines: list[tuple[str, ...]] = [(*HEADER, "")]
    for result in results:
        marks = ["DIFFERS" if row.differs else "" for row in result.rows]
        lines += [(*row, mark) for row, mark in zip(cells(result), marks, strict=True)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def as_markdown(results: Sequence[Result]) -> str:
    """A table for a page."""
    lines = [HEADER, ("---", "---", "---", "---", "---:", "---:", "---:"), *(row for result in results for row in cells(result))]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
