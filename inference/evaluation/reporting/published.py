"""What lmms-eval found of checkpoints, beside published figures of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference.evaluation.published.beside import beside, read_results
from inference.evaluation.published.table import load_table
from inference.evaluation.suites.lmms.totals import results_files
from model.errors import InputError

JsonObject = dict[str, Any]


def published_tables(folders: Mapping[str, Path]) -> list[JsonObject]:
    """One table: `title`, `columns`, `rows` of texts, `notes`. Benchmarks that no folder has are named in a note;
    where no folder has any there is no table.

    Args:
        folders: of lmms-eval's results, by the name of the checkpoint.

    Raises:
        InputError: a folder holds no results, or some without the metric of its table.
    """
    if not folders:
        return []
    table = load_table()
    ours = {}
    for name, folder in folders.items():
        files = results_files(folder)
        if not files:
            raise InputError(f"{folder} holds no *_results.json; give the --output_path of lmms-eval")
        ours[name] = beside(table, [read_results(path) for path in files])
    rows, absent, notes = [], [], [f"{', '.join(table.columns)}: {table.source}, {table.certainty}."]
    for place, row in enumerate(table.rows):
        found = [own[place] for own in ours.values()]
        if all(one.ours is None for one in found):
            absent.append(row.name)
            continue
        cells = []
        for one in found:
            error = "" if one.stderr is None else f" ± {one.stderr:.2f}"
            cells.append("–" if one.ours is None else f"{one.ours:.2f}{error}{'' if one.complete else ' *'}")
        theirs = ["–" if figure is None else f"{figure:.2f}" for figure in row.figures.values()]
        rows.append([row.name, row.task, *cells, *theirs])
        if row.note:
            notes.append(f"{row.name}: {row.note}")
    if not rows:
        return []
    notes.append(f"Task ids and metrics are those of {table.harness}. ± is one standard error.")
    if any(not one.complete for own in ours.values() for one in own):
        notes.append("* only some of the task's documents were asked: not to be compared with the others.")
    if absent:
        notes.append(f"Not measured: {', '.join(absent)}.")
    return [{"title": table.title, "columns": ["benchmark", "task", *ours, *table.columns], "rows": rows, "notes": notes}]
