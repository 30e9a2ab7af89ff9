"""Rows of the page's tables out of the content's plain values; drawings in cells are SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moss_train.report.evaluation.bars import difference_bar, interval_bar, number, p_value, scale

JsonObject = dict[str, Any]
OFFICIAL, STRICT = "official", "strict"


@dataclass
class Cell:
    """A figure with its interval as text and as a bar."""

    text: str = "–"
    interval: str = ""
    bar: str = ""
    note: str = ""


@dataclass
class Row:
    """One metric; a cell for each model, and a second one of each where two parsers judged it."""

    label: str
    cells: list[Cell]
    lower: bool = False
    """Less is better."""
    main: bool = False
    strict: list[Cell] = field(default_factory=list)


def metric_cell(found: JsonObject | None, ends: tuple[float, float], colour: int) -> Cell:
    """A metric of one model; a dash where it has none."""
    if found is None or found.get("estimate") is None:
        return Cell(note=(found or {}).get("note", ""))
    known = found["low"] is not None and found["high"] is not None
    interval = f"{number(found['low'])} … {number(found['high'])}" if known else "no interval"
    return Cell(number(found["estimate"]), interval, interval_bar(found, ends, colour), found.get("note", ""))


def suite_rows(suite: JsonObject, models: Sequence[str], colours: Mapping[str, int]) -> tuple[list[Row], list[Row]]:
    """Rows of metrics that one parser judged, and of those with an official and a strict one side by side.

    Metrics that no model has are left out.
    """
    single, double = [], []
    names = [name for name in suite["metrics"] if any(_estimate(suite, model, name) is not None for model in models)]
    partners = {
        name: name.replace(OFFICIAL, STRICT) for name in names if OFFICIAL in name and name.replace(OFFICIAL, STRICT) in names
    }
    for name in names:
        if name in partners.values():
            continue
        lower = name in suite["lower_is_better"]
        if name in partners:
            both = [name, partners[name]]
            ends = scale([_metric(suite, model, one) or {} for model in models for one in both])
            cells, strict = (_cells(suite, models, one, ends, colours) for one in both)
            double.append(Row(_stem(name), cells, lower, suite["main"] in both, strict))
        else:
            ends = scale([_metric(suite, model, name) or {} for model in models])
            single.append(Row(name, _cells(suite, models, name, ends, colours), lower, name == suite["main"]))
    return single, double


def overview_rows(suites: Sequence[JsonObject], models: Sequence[str], colours: Mapping[str, int]) -> list[tuple[str, Row]]:
    """The main metric of each suite, with the suite's title."""
    rows = []
    for suite in suites:
        if any(_estimate(suite, model, suite["main"]) is not None for model in models):
            ends = scale([_metric(suite, model, suite["main"]) or {} for model in models])
            cells = _cells(suite, models, suite["main"], ends, colours)
            rows.append((suite["title"], Row(suite["main"], cells, suite["main"] in suite["lower_is_better"])))
    return rows


def difference_rows(comparison: JsonObject) -> list[JsonObject]:
    """One table for each suite of a comparison: its rows and what was compared."""
    tables = []
    for suite, found in comparison["suites"].items():
        known = {name: one for name, one in found["metrics"].items() if one["difference"] is not None}
        rows = []
        for name, one in known.items():
            reach = max((abs(one[key]) for key in ("difference", "low", "high") if one[key] is not None), default=0.0)
            interval = "" if one["low"] is None else f"{one['low']:+.3f} … {one['high']:+.3f}"
            unit = 1.0 if reach <= 1 else reach
            rows.append(
                {
                    "name": name,
                    "a": number(one["a"]),
                    "b": number(one["b"]),
                    "difference": f"{one['difference']:+.3f}",
                    "interval": interval,
                    "bar": difference_bar(one, unit, one["verdict"]),
                    "p": p_value(one["p"]),
                    "p_holm": p_value(one["p_holm"]),
                    "verdict": one["verdict"],
                }
            )
        changed = [
            {"name": name, **{key: one[key] for key in ("both", "only_a", "only_b", "neither")}, "p": p_value(one["p"])}
            for name, one in found["changed"].items()
        ]
        tables.append({"suite": suite, "rows": rows, "changed": changed, "items": found["items"], "clusters": found["clusters"]})
    return tables


def kept_rows(comparison: JsonObject) -> list[tuple[str, str, str, str, str]]:
    """Metric, verdict, loss, its upper bound and the margin."""
    return [
        (name, one["verdict"], number(one["loss"]), number(one["at_most"]), f"{one['margin']:g}")
        for name, one in comparison["keeps"].items()
    ]


def facts(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A nested object as rows of label and text; what is empty is left out."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += [(f"{name}.{inner}", text) for inner, text in facts(value)]
        elif value is not None and value != "" and value != []:
            rows.append((name, ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))
    return rows


def _metric(suite: JsonObject, model: str, name: str) -> JsonObject | None:
    found: JsonObject | None = suite["models"].get(model, {}).get("metrics", {}).get(name)
    return found


def _estimate(suite: JsonObject, model: str, name: str) -> float | None:
    found = _metric(suite, model, name)
    return None if found is None else found["estimate"]


def _cells(
    suite: JsonObject, models: Sequence[str], name: str, ends: tuple[float, float], colours: Mapping[str, int]
) -> list[Cell]:  # fmt: skip
    return [metric_cell(_metric(suite, model, name), ends, colours[model]) for model in models]


def _stem(name: str) -> str:
    """A metric's name without its parser."""
    for part in (f"_{OFFICIAL}", f".{OFFICIAL}", f"{OFFICIAL}_", f"{OFFICIAL}."):
        if part in name:
            return name.replace(part, "", 1)
    return name
