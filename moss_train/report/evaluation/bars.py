"""Small drawings inside tables, as SVG without a library: an interval on a scale, a difference around zero, histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moss_train.report.chart import COLOURS, ticks

JsonObject = dict[str, Any]
WIDTH, HEIGHT = 110, 10
_EDGE = 4


def number(value: float | None) -> str:
    """A figure for a table: three decimals of small ones, fewer of large ones."""
    if value is None:
        return "–"
    value = value or 0.0  # no -0.000
    size = abs(value)
    return f"{value:.3f}" if size < 10 else f"{value:.2f}" if size < 100 else f"{value:.1f}" if size < 10_000 else f"{value:,.0f}"


def p_value(value: float | None) -> str:
    """A p value for a table."""
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def scale(found: Sequence[JsonObject]) -> tuple[float, float]:
    """Ends of the scale of a metric's bars: 0 to 1 where everything lies there, else from 0 or the least to the most."""
    values = [one[key] for one in found for key in ("estimate", "low", "high") if one.get(key) is not None]
    if not values:
        return 0.0, 1.0
    low, high = min(values), max(values)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high > low else (low, low + 1.0)


def interval_bar(found: JsonObject, ends: tuple[float, float], colour: int = 0) -> str:
    """The estimate as a dot, its interval as a line, on the scale as a thin line."""
    if found.get("estimate") is None:
        return ""
    stroke, half = COLOURS[colour % len(COLOURS)], HEIGHT / 2
    parts = [f'<line class="axis" x1="{_EDGE}" x2="{WIDTH - _EDGE}" y1="{half}" y2="{half}"/>']
    if found.get("low") is not None and found.get("high") is not None:
        first, last = (_place(found[key], ends) for key in ("low", "high"))
        parts.append(
            f'<line x1="{first:.1f}" x2="{max(last, first + 1):.1f}" y1="{half}" y2="{half}" stroke="{stroke}" stroke-width="3" '
            'stroke-opacity="0.55"/>'
        )
    parts.append(f'<circle cx="{_place(found["estimate"], ends):.1f}" cy="{half}" r="3" fill="{stroke}"/>')
    return _svg(WIDTH, HEIGHT, parts, "bar")


def difference_bar(found: JsonObject, reach: float, verdict: str) -> str:
    """A difference with its interval around zero, which is a vertical line.

    Args:
        reach: the largest difference on the scale.
        verdict: better | worse | other; gives the colour.
    """
    if found.get("difference") is None:
        return ""
    ends, half = (-reach, reach), HEIGHT / 2
    parts = [
        f'<line class="axis" x1="{_EDGE}" x2="{WIDTH - _EDGE}" y1="{half}" y2="{half}"/>',
        f'<line class="axis" x1="{WIDTH / 2}" x2="{WIDTH / 2}" y1="0" y2="{HEIGHT}"/>',
    ]
    kind = verdict if verdict in ("better", "worse") else "same"
    if found.get("low") is not None and found.get("high") is not None:
        first, last = (_place(found[key], ends) for key in ("low", "high"))
        wide = f'y1="{half}" y2="{half}" stroke-width="3" stroke-opacity="0.55"'
        parts.append(f'<line class="line-{kind}" x1="{first:.1f}" x2="{max(last, first + 1):.1f}" {wide}/>')
    parts.append(f'<circle class="dot-{kind}" cx="{_place(found["difference"], ends):.1f}" cy="{half}" r="3"/>')
    return _svg(WIDTH, HEIGHT, parts, "bar")


def histogram(edges: Sequence[float], models: Mapping[str, JsonObject], colours: Mapping[str, int]) -> str:
    """Shares by bin, one outline for each model; below the ends of the scale."""
    width, height, bottom = 340, 110, 16
    low, high = edges[0], edges[-1]
    most = max((share for one in models.values() for share in one["shares"]), default=0.0) or 1.0

    def x(value: float) -> float:
        return 6 + (value - low) / (high - low) * (width - 12)

    parts = [f'<line class="axis" x1="6" x2="{width - 6}" y1="{height - bottom}" y2="{height - bottom}"/>']
    for value in ticks(low, high, 6):
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{height - 4}" text-anchor="middle">{value:.4g}</text>')
    for name, one in models.items():
        points = [(edges[0], 0.0)]
        for place, share in enumerate(one["shares"]):
            points += [(edges[place], share), (edges[place + 1], share)]
        points.append((edges[-1], 0.0))
        path = " ".join(f"{x(at):.1f},{height - bottom - share / most * (height - bottom - 8):.1f}" for at, share in points)
        colour = COLOURS[colours[name] % len(COLOURS)]
        parts.append(f'<polygon points="{path}" fill="{colour}" fill-opacity="0.12" stroke="{colour}" stroke-width="1.2"/>')
    return _svg(width, height, parts, "histogram")


def _place(value: float, ends: tuple[float, float]) -> float:
    share = (value - ends[0]) / (ends[1] - ends[0])
    return _EDGE + min(1.0, max(0.0, share)) * (WIDTH - 2 * _EDGE)


def _svg(width: float, height: float, parts: Sequence[str], kind: str) -> str:
    return (
        f'<svg class="{kind}" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" aria-hidden="true">{"".join(parts)}</svg>'
    )
