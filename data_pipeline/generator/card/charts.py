"""Bars as inline SVG, drawn without a library; each has its number as a title, and the whole a text and a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from data_pipeline.generator.card.histogram import Counts, Histogram

WIDTH, HEIGHT = 440, 190
LEFT, RIGHT, TOP, BOTTOM = 10, 10, 22, 30
BAR = "#3465a4"
ROW = 19
"""Height of a horizontal bar with its gap."""
LETTER = 6.8
"""Width of a letter in a label."""


@dataclass(frozen=True)
class Chart:
    """A picture and the same in words and numbers."""

    title: str
    unit: str
    svg: str
    rows: list[tuple[str, int, str]]
    """Label, count, share."""
    summary: str
    note: str = ""


def histogram_chart(title: str, unit: str, histogram: Histogram, *, whole: bool = False, note: str = "") -> Chart:
    """Vertical bars, one a bin; empty bins at both ends are left out.

    Args:
        whole: the values are whole numbers, so a bin's label names the last one that it holds.
    """
    rows = _shares(_used(_bins(histogram, whole)), histogram.n)
    if not histogram.n:
        return Chart(title, unit, "", [], "Nothing was counted", note)
    summary = f"{histogram.n:,} values, mean {histogram.mean:.3g}, from {histogram.low:.3g} to {histogram.high:.3g}"
    return Chart(title, unit, _vertical(title, unit, rows, summary), rows, summary, note)


def counts_chart(title: str, unit: str, counts: Counts, *, most: int = 12, of: int | None = None, note: str = "") -> Chart:
    """Horizontal bars, the most frequent texts first; the rest is one bar.

    Args:
        of: what shares are of, where a thing can be counted under several texts; by default all that was counted.
    """
    ranked = counts.ranked()
    if not ranked:
        return Chart(title, unit, "", [], "Nothing was counted", note)
    shown = ranked[:most]
    rest = counts.n - sum(times for _, times in shown)
    rows = _shares([*shown, *([(f"{len(ranked) - len(shown):,} others", rest)] if rest else [])], of or counts.n)
    summary = f"{counts.n:,} counted, {len(ranked):,} distinct; most frequent: {ranked[0][0]} ({ranked[0][1]:,})"
    return Chart(title, unit, _horizontal(title, rows, summary), rows, summary, note)


def _bins(histogram: Histogram, whole: bool) -> list[tuple[str, int]]:
    edges = histogram.edges
    bins = [(f"below {edges[0]:g}", histogram.below)]
    for index, count in enumerate(histogram.counts):
        low = edges[index]
        if index + 1 == len(edges):
            label = f"{low:g}" if histogram.high <= low else f"{low:g} and more"
        elif whole:
            last = edges[index + 1] - 1
            label = f"{low:g}" if last <= low else f"{low:g}–{last:g}"
        else:
            label = f"{low:g}–{edges[index + 1]:g}"
        bins.append((label, count))
    return bins


def _used(bins: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    places = [index for index, (_, count) in enumerate(bins) if count]
    return list(bins[places[0] : places[-1] + 1]) if places else []


def _shares(bins: Sequence[tuple[str, int]], total: int) -> list[tuple[str, int, str]]:
    return [(label, count, percent(count / total)) for label, count in bins]


def percent(share: float | None) -> str:
    """A share as it is written on the page."""
    if share is None:
        return "–"
    return f"{share:.1%}" if share >= 0.001 or share == 0 else "<0.1%"


def _open(title: str, height: float, summary: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(f"{title}: {summary}")}" font-family="system-ui, sans-serif" font-size="11">'
    )


def _vertical(title: str, unit: str, rows: Sequence[tuple[str, int, str]], summary: str) -> str:
    most = max(count for _, count, _ in rows)
    step = (WIDTH - LEFT - RIGHT) / max(len(rows), 6)
    floor = HEIGHT - BOTTOM
    parts = [_open(title, HEIGHT, summary)]
    every = max(1, math.ceil((max(len(label) for label, _, _ in rows) * LETTER + 8) / step))
    for index, (label, count, share) in enumerate(rows):
        x, tall = LEFT + index * step, (floor - TOP) * count / most
        tall = max(tall, 1.0) if count else 0.0
        parts.append(
            f'<rect x="{x + 1:.1f}" y="{floor - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}" fill="{BAR}">'
            f"<title>{escape(label)}: {count:,} ({share})</title></rect>"
        )
        middle = x + step / 2
        if count and step > LETTER * len(share) + 2:
            parts.append(f'<text x="{middle:.1f}" y="{floor - tall - 4:.1f}" text-anchor="middle" fill="#444">{share}</text>')
        if (len(rows) - 1 - index) % every == 0:
            parts.append(f'<text x="{middle:.1f}" y="{floor + 13}" text-anchor="middle" fill="#333">{escape(label)}</text>')
    parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}" stroke="#888"/>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 3}" text-anchor="end" fill="#555">{escape(unit)}</text>')
    return "".join([*parts, "</svg>"])


def _horizontal(title: str, rows: Sequence[tuple[str, int, str]], summary: str) -> str:
    most = max(count for _, count, _ in rows)
    label_width = min(190.0, max(len(label) for label, _, _ in rows) * LETTER + 8)
    letters = int(label_width / LETTER)
    room = WIDTH - label_width - 64
    parts = [_open(title, 6 + ROW * len(rows), summary)]
    for index, (label, count, share) in enumerate(rows):
        y = 4 + ROW * index
        shown = label if len(label) <= letters else label[: letters - 1] + "…"
        wide = max(1.0, room * count / most)
        parts.append(
            f'<text x="{label_width - 6:.1f}" y="{y + 11}" text-anchor="end" fill="#222">{escape(shown)}</text>'
            f'<rect x="{label_width:.1f}" y="{y}" width="{wide:.1f}" height="{ROW - 5}" fill="{BAR}">'
            f"<title>{escape(label)}: {count:,} ({share})</title></rect>"
            f'<text x="{label_width + wide + 5:.1f}" y="{y + 11}" fill="#444">{share}</text>'
        )
    return "".join([*parts, "</svg>"])
