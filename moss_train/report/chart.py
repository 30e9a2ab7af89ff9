"""Charts over steps as inline SVG, drawn without a library."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 480, 250
LEFT, RIGHT, BOTTOM = 58, 12, 30
POINTS = 300
"""Of a line; longer runs are averaged to so many."""
DECADE = 10.0
COLOURS = ("#3465a4", "#cc5500", "#2e8b57", "#8f4fbf", "#c0392b", "#7a6a00", "#1d8f9e", "#b0457f", "#5c5c5c", "#84a33a")
LETTER = 5.6  # width of a letter of the legend


@dataclass(frozen=True)
class Series:
    """Values of one name by step; values that are no finite number are left out."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    dots: bool = False
    """Also a mark for every value."""

    def points(self) -> list[tuple[float, float]]:
        """Finite points, averaged to at most `POINTS`."""
        found = [(s, v) for s, v in zip(self.steps, self.values, strict=True) if math.isfinite(v)]
        size = -(-len(found) // POINTS)
        groups = [found[i : i + size] for i in range(0, len(found), size)] if size > 1 else [[point] for point in found]
        return [(sum(s for s, _ in group) / len(group), sum(v for _, v in group) / len(group)) for group in groups]


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About so many round values within a range."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def line_chart(
    title: str, series: Sequence[Series], *, unit: str = "", log: bool = False, marks: Iterable[float] = (), x_label: str = "step"
) -> str:  # fmt: skip
    """Lines over steps.

    Args:
        log: logarithmic, where all values are above 0 and span more than a decade.
        marks: steps of vertical lines, such as restarts.
    """
    drawn = [(one, one.points()) for one in series]
    values = [value for _, points in drawn for _, value in points]
    logarithmic = log and bool(values) and min(values) > 0 and max(values) / min(values) > DECADE
    frame = _Frame(title, unit, drawn, logarithmic, stacked=False)
    body = []
    for index, (one, points) in enumerate(drawn):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{frame.x(s):.1f},{frame.y(v):.1f}" for s, v in points)
        if len(points) > 1:
            body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        if one.dots or len(points) == 1:
            body += [f'<circle cx="{frame.x(s):.1f}" cy="{frame.y(v):.1f}" r="2.4" fill="{colour}"/>' for s, v in points]
    return frame.render(body, marks, x_label)


def stacked_chart(
    title: str, series: Sequence[Series], *, unit: str = "", marks: Iterable[float] = (), x_label: str = "step"
) -> str:  # fmt: skip
    """Areas on top of each other; a series lacking a step counts 0 there."""
    by_step: list[dict[float, float]] = [dict(zip(one.steps, one.values, strict=True)) for one in series]
    steps = sorted({step for one in by_step for step in one})
    floor = [0.0] * len(steps)
    drawn: list[tuple[Series, list[tuple[float, float]]]] = []
    areas = []
    for one, known in zip(series, by_step, strict=True):
        heights = [known.get(step, 0.0) for step in steps]
        top = [low + (height if math.isfinite(height) else 0.0) for low, height in zip(floor, heights, strict=True)]
        lower, upper = Series("", steps, floor).points(), Series("", steps, top).points()
        areas.append((lower, upper))
        drawn.append((one, upper))
        floor = top
    frame = _Frame(title, unit, drawn, False, stacked=True)
    body = []
    for index, (lower, upper) in enumerate(areas):
        outline = " ".join(f"{frame.x(s):.1f},{frame.y(v):.1f}" for s, v in [*upper, *reversed(lower)])
        body.append(f'<polygon points="{outline}" fill="{COLOURS[index % len(COLOURS)]}" fill-opacity="0.75"/>')
    return frame.render(body, marks, x_label)


class _Frame:
    """Axes, ticks, legend; places of values."""

    def __init__(
        self, title: str, unit: str, drawn: Sequence[tuple[Series, list[tuple[float, float]]]], log: bool, stacked: bool
    ) -> None:  # fmt: skip
        self._title, self._unit, self._log = title, unit, log
        self._names = [one.name for one, _ in drawn]
        points = [point for _, found in drawn for point in found]
        steps = [step for step, _ in points] or [0.0, 1.0]
        values = [value for _, value in points] or [0.0, 1.0]
        low, high = min(values), max(values)
        if stacked or (0 <= low < 0.5 * high and not log):
            low, high = min(low, 0.0), max(high, 0.0)  # rates and times are read from zero
        if high - low <= 1e-12 * max(abs(high), abs(low)):
            low, high = (low * 0.9, high * 1.1) if low > 0 else (low - 1.0, high + 1.0)
        self._low, self._high = low, high
        self._first, self._last = min(steps), max(max(steps), min(steps) + 1)
        self._rows = self._legend()
        self._top = 24 + 13 * len(self._rows)

    def x(self, step: float) -> float:
        return LEFT + (step - self._first) / (self._last - self._first) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._low, self._high
        if self._log:
            share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        else:
            share = (value - low) / (high - low)
        return HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - self._top)

    def render(self, body: Iterable[str], marks: Iterable[float], x_label: str) -> str:
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
            f'aria-label="{escape(self._title)}" font-family="system-ui, sans-serif" font-size="10">',
            f'<text x="8" y="14" font-size="12" font-weight="600">{escape(self._title)}</text>',
            f'<text x="{WIDTH - RIGHT}" y="14" text-anchor="end" fill="#777">{escape(self._unit)}</text>',
            *self._legend_marks(),
        ]
        for value in self._value_ticks():
            place = self.y(value)
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}" stroke="#e5e5e5"/>')
            parts.append(f'<text x="{LEFT - 5}" y="{place + 3:.1f}" text-anchor="end" fill="#555">{value:.4g}</text>')
        for step in ticks(self._first, self._last):
            parts.append(
                f'<text x="{self.x(step):.1f}" y="{HEIGHT - BOTTOM + 13}" text-anchor="middle" fill="#555">{step:.7g}</text>'
            )
        parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 5}" text-anchor="end" fill="#777">{escape(x_label)}</text>')
        for step in marks:
            if self._first <= step <= self._last:
                across, ends = f"{self.x(step):.1f}", f'y1="{self._top}" y2="{HEIGHT - BOTTOM}"'
                parts.append(f'<line x1="{across}" x2="{across}" {ends} stroke="#999" stroke-dasharray="3 3"/>')
        return "".join([*parts, *body, "</svg>"])

    def _value_ticks(self) -> list[float]:
        if not self._log:
            return ticks(self._low, self._high)
        first, last = math.floor(math.log10(self._low)), math.ceil(math.log10(self._high))
        factors = (1,) if last - first > 3 else (1, 2, 5)
        values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
        return [value for value in values if self._low <= value <= self._high]

    def _legend(self) -> list[list[int]]:
        """Indices of the names in each row of the legend; none for a single name."""
        rows: list[list[int]] = []
        room = 0.0
        for index, name in enumerate(self._names if len(self._names) > 1 else []):
            need = 20 + LETTER * len(name)
            if not rows or need > room:
                rows.append([])
                room = float(WIDTH - 16)
            rows[-1].append(index)
            room -= need
        return rows

    def _legend_marks(self) -> Iterable[str]:
        for number, row in enumerate(self._rows):
            place, height = 8.0, 27 + 13 * number
            for index in row:
                colour = COLOURS[index % len(COLOURS)]
                yield f'<rect x="{place:.1f}" y="{height - 7}" width="8" height="8" fill="{colour}"/>'
                yield f'<text x="{place + 11:.1f}" y="{height}" fill="#333">{escape(self._names[index])}</text>'
                place += 20 + LETTER * len(self._names[index])
