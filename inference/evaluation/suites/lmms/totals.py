"""Reads the totals that lmms-eval writes for its tasks: `DATE_results.json`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from model.errors import InputError


def results_files(folder: Path) -> list[Path]:
    """All results files in a folder or below it, oldest first: their names begin with the date."""
    found = [*folder.rglob("*_results.json"), *folder.rglob("results_*.json")] if folder.is_dir() else []
    return sorted(found, key=lambda path: path.name)


def read_totals(folder: Path) -> dict[str, tuple[float, float | None]]:
    """Value and standard error of each `TASK.METRIC`; where several files have a task the newest counts.

    Raises:
        InputError: a file is no results file.
    """
    found: dict[str, tuple[float, float | None]] = {}
    for path in results_files(folder):
        try:
            tasks: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["results"]
            for task, values in tasks.items():
                for key, value in values.items():
                    metric, comma, filtered = key.partition(",")
                    if not comma or "_stderr" in metric or not _is_number(value):
                        continue
                    error = values.get(f"{metric}_stderr,{filtered}")
                    name = f"{task}.{metric}" + ("" if filtered == "none" else f".{filtered}")
                    found[name] = (float(value), float(error) if _is_number(error) else None)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path} is no results file of lmms-eval ({error!r}); run the tasks again") from None
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
