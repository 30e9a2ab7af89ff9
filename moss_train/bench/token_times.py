"""A chart of how long each token took, from the results of `moss bench inference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model.errors import InputError
from moss_train.report.chart import Series, line_chart


def draw(content: Mapping[str, Any]) -> str:
    """An SVG with one line for each part that timed tokens one by one, in milliseconds.

    Raises:
        InputError: no part did.
    """
    series = [Series(name, range(len(gaps)), [1e3 * gap for gap in gaps]) for name, gaps in token_gaps(content).items()]
    if not series:
        raise InputError("these results hold no times of single tokens; measure the part decode, jitter or sessions first")
    return line_chart("time of each token", series, unit="ms", log=True, x_label="token")


def token_gaps(content: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    """Seconds between tokens, of the first run or session of each part; of a long stream, of each frame's step."""
    found: dict[str, Sequence[float]] = {}
    for part, measured in content["parts"].items():
        runs = measured.get("runs")
        if isinstance(runs, dict) and "step_s" in runs:
            found[f"{part}, by frame"] = runs["step_s"]
        if not isinstance(runs, list) or not runs:
            continue
        first = runs[0]
        if isinstance(first, list):
            found[part] = first
        elif isinstance(first, dict) and "gap_s" in first:
            found[part] = first["gap_s"]
    return found
