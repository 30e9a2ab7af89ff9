"""Fills the page and writes it beside its numbers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moss_train.report.collect import StageCurve, summary
from moss_train.report.page import render, write_text
from moss_train.report.plots import loss_svg
from moss_train.report.scores import COST_COLUMNS, behaviour_rows, cost_rows, kind_rows, score_rows
from moss_train.report.strips import Strip

JsonObject = dict[str, Any]


@dataclass
class ReportContent:
    """Everything on the page."""

    title: str
    intro: str
    score_note: str
    curves: list[StageCurve]
    scores: dict[str, JsonObject]
    """By model name; the first is the one that the page is about."""
    strips: list[Strip] = field(default_factory=list)
    answers: list[JsonObject] = field(default_factory=list)
    answer_models: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    ablations: dict[str, str] = field(default_factory=dict)
    """Names of models in `scores`, by what was left out of their training."""


def _sizes(scores: dict[str, JsonObject]) -> str:
    """How much the first model was measured on."""
    counts = next(iter(scores.values()), {}).get("counts", {})
    if not counts:
        return ""
    streamed = (
        f"{counts.get('clips_streamed', 0)} clips streamed ({counts.get('frames', 0)} frames, {counts.get('spans', 0)} events)"
    )
    return f"{streamed}, {counts.get('questions', 0)} questions; greedy and free-running; no clip is in the training data."


def write_report(out_html: Path, content: ReportContent) -> JsonObject:
    """Write `report.html` and, beside it, `report.json`; returns the content of the latter."""
    numbers = summary(content.curves, content.scores)
    page = render(
        "page.html.j2",
        title=content.title,
        intro=content.intro,
        score_note=content.score_note,
        sizes=_sizes(content.scores),
        models=list(content.scores),
        score_rows=score_rows(content.scores),
        behaviours=behaviour_rows(content.scores),
        kinds=kind_rows(content.scores),
        cost_columns=[label for label, _ in COST_COLUMNS],
        costs=cost_rows(content.scores, content.ablations),
        curves=[loss_svg(curve) for curve in content.curves],
        losses=numbers["loss"],
        strips=content.strips,
        answers=content.answers,
        answer_models=content.answer_models,
        commands=content.commands,
    )
    write_text(out_html.with_suffix(".json"), json.dumps(numbers, indent=1) + "\n")
    write_text(out_html, page)
    return numbers
