"""`report.html` of a run folder: charts of all that was recorded, and tables of what happened."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moss_train.monitors.panels import Panel, sections_for
from moss_train.monitors.progress import duration, short
from moss_train.report.chart import Series, line_chart, stacked_chart
from moss_train.report.page import render, write_text
from moss_train.report.run_data import RunData, read_run


def write_run_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page; returns its path.

    Args:
        out: the page; None writes `report.html` into the folder.

    Raises:
        InputError: the folder holds no run that has done a step.
    """
    data = read_run(folder)
    page = out or folder / "report.html"
    write_text(page, render("run.html.j2", **page_values(data)))
    return page


def page_values(data: RunData) -> dict[str, Any]:
    """What the template shows."""
    sections = [
        (section.title, [draw(panel, data) for panel in section.panels]) for section in sections_for(data.curves)
    ]  # fmt: skip
    last = data.steps[-1]
    samples = [
        (name, count, last.get("dataset_epochs", {}).get(name), data.steps[-1].get("dataset_loss", {}).get(name))
        for name, count in last.get("dataset_samples", {}).items()
    ]
    return {
        "title": data.path.resolve().name,
        "summary": summary_rows(data),
        "sections": sections,
        "samples": samples,
        "left_out": data.left_out,
        "events": data.events,
        "stragglers": [json.dumps(row) for row in data.stragglers[-20:]],
        "anomalies": data.anomalies,
        "versions": data.versions,
        "config": data.config,
    }


def draw(panel: Panel, data: RunData) -> str:
    """One chart as SVG. Names lose the part that all of them have in common."""
    names = panel.pick(data.curves)
    dotted = set(Panel("", panel.dots).pick(names))
    series = [Series(label, *data.curves[name], dots=name in dotted) for name, label in zip(names, labels(names), strict=True)]
    if panel.stacked:
        return stacked_chart(panel.title, series, unit=panel.unit, marks=data.restarts)
    return line_chart(panel.title, series, unit=panel.unit, log=panel.log, marks=data.restarts)


def labels(names: Sequence[str]) -> list[str]:
    """Short names: without the folders that all of them share."""
    parts = [name.split("/") for name in names]
    shared = 0
    while all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return ["/".join(part[shared:]) for part in parts]


def summary_rows(data: RunData) -> list[tuple[str, str]]:
    """Label and text of what a reader wants first."""
    steps, last = data.steps, data.steps[-1]
    rows = [("steps", f"{last['step']}"), ("training loss", f"{steps[0]['loss']:.4g} → {last['loss']:.4g}")]
    if data.evaluations:
        first, final = data.evaluations[0], data.evaluations[-1]
        rows.append(("held-out loss", f"{first['eval_loss']:.4g} → {final['eval_loss']:.4g} (step {final['step']})"))
    if "elapsed_seconds" in last:
        rows.append(("time in the run", duration(last["elapsed_seconds"])))
    for label, key, text in (
        ("step, median", "seconds", lambda v: f"{v:.3g} s"),
        ("tokens a second, median", "tokens_per_second", short),
        ("frames a second, median", "frames_per_second", short),
        ("TFLOP a second, median", "tflops_per_second", short),
        ("MFU, median", "mfu", lambda v: f"{100 * v:.1f} %"),
        ("waiting for data, median", "data_share", lambda v: f"{100 * v:.1f} % of the step"),
    ):
        values = [record[key] for record in steps if key in record]
        if values:
            rows.append((label, text(statistics.median(values))))
    stalls = [event["stall_seconds"] for event in data.events if event.get("stall_seconds")]
    if stalls:
        rows.append(("loop blocked by saving", f"{sum(stalls):.3g} s in {len(stalls)} checkpoints, at most {max(stalls):.3g} s"))
    monitors = [r["monitor_seconds"]["total"] / r["seconds"] for r in steps if "total" in r.get("monitor_seconds", {})]
    if monitors:
        rows.append(("monitors, median", f"{100 * statistics.median(monitors):.2f} % of the step"))
    skipped = sum(bool(record.get("skipped")) for record in steps)
    rows.append(("updates left out", str(skipped)))
    rows.append(("restarts", ", ".join(f"from step {step}" for step in data.restarts) or "none"))
    return rows
