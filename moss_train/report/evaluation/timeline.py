"""A scenario as one drawing: frames, prompts, truth, and below them one row for each model, all over the same axis of time."""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from moss_train.report.chart import COLOURS, ticks

JsonObject = dict[str, Any]
WIDTH, LEFT, RIGHT = 1100, 120, 14
LETTER = 5.3
"""Width of a letter of the texts."""
LINE = 12
"""Height of a line of text."""
MOST_LINES = 3
"""Of texts that lie over each other in one row; more are told in the list below the drawing only."""
LONGEST = 44
"""Letters of a text in the drawing."""


@dataclass
class _Drawing:
    """Parts of the picture, from top to bottom."""

    seconds: float
    parts: list[str] = field(default_factory=list)
    y: float = 4.0

    def x(self, t: float) -> float:
        """Place of a moment."""
        return LEFT + min(1.0, max(0.0, t / self.seconds)) * (WIDTH - LEFT - RIGHT)

    def label(self, text: str, y: float, colour: str = "") -> None:
        """Name of a row, at the left."""
        paint = f' style="fill:{colour}"' if colour else ""
        self.parts.append(
            f'<text class="row"{paint} x="4" y="{y:.1f}">{escape(_short(text, 20))}<title>{escape(text)}</title></text>'
        )

    def texts(self, found: Sequence[tuple[float, str, str]], y: float) -> int:
        """Texts (moment, text, class) below y, each in the first line in which it has room; returns how many lines."""
        ends: list[float] = []
        for t, text, kind in sorted(found):
            shown = _short(text, LONGEST)
            place = min(self.x(t), WIDTH - RIGHT - _width(shown))
            line = next((n for n, end in enumerate(ends) if place >= end), len(ends))
            if line >= MOST_LINES:
                continue
            if line == len(ends):
                ends.append(0.0)
            ends[line] = place + _width(shown) + 6
            title = f"<title>{escape(f'{t:g} s: {text}')}</title>"
            self.parts.append(
                f'<text class="{kind}" x="{place:.1f}" y="{y + LINE * (line + 1) - 2:.1f}">{escape(shown)}{title}</text>'
            )
        return len(ends)


def draw(line: JsonObject, frames: Sequence[tuple[int, str]], colours: Mapping[str, int]) -> str:
    """The drawing of one timeline.

    Args:
        line: as `inference.evaluation.reporting.timelines` makes it.
        frames: thumbnails by index of the frame.
        colours: of the models, as places among the page's colours.
    """
    drawing = _Drawing(max(line["seconds"], 1e-6))
    _frames(drawing, line, frames)
    _axis(drawing)
    top = drawing.y
    _moments(drawing, "asked", [(p["t"], p["text"]) for p in line["prompts"]], "prompt")
    _moments(drawing, "changes", [(c["t"], f"{c['before']} → {c['after']}") for c in line["changes"]], "change")
    _truth(drawing, line)
    for stream in line["streams"]:
        _stream(drawing, stream, line, COLOURS[colours[stream["model"]] % len(COLOURS)])
    for poll in line["polls"]:
        _poll(drawing, poll, colours)
    rules = [
        f'<line class="rule" x1="{drawing.x(c["t"]):.1f}" x2="{drawing.x(c["t"]):.1f}" y1="{top}" y2="{drawing.y}"/>'
        for c in line["changes"]
    ]
    title = escape(f"Timeline of {line['id']}")
    return (
        f'<svg class="timeline" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {drawing.y:.0f}" role="img" '
        f'aria-label="{title}">{"".join([*rules, *drawing.parts])}</svg>'
    )


def _frames(drawing: _Drawing, line: JsonObject, frames: Sequence[tuple[int, str]]) -> None:
    if not frames:
        return
    room = (WIDTH - LEFT - RIGHT) / max(len(frames), 1) - 2
    width = min(room, 72.0)
    tallest = 0.0
    for index, uri in frames:
        height = width * _shape(uri)
        tallest = max(tallest, height)
        place = drawing.x(index / line["fps"])
        drawing.parts.append(f'<image x="{place:.1f}" y="{drawing.y}" width="{width:.1f}" height="{height:.1f}" href="{uri}"/>')
    drawing.label("frames", drawing.y + 12)
    drawing.y += tallest + 4


def _shape(uri: str) -> float:
    """Height over width of a JPEG's data URI, out of its frame header."""
    content = base64.b64decode(uri.partition(",")[2])
    place = 2
    while place + 9 < len(content):
        marker, length = content[place + 1], struct.unpack(">H", content[place + 2 : place + 4])[0]
        if 0xC0 <= marker <= 0xC3:
            height, width = struct.unpack(">HH", content[place + 5 : place + 9])
            return float(height / width)
        place += 2 + length
    return 1.0


def _axis(drawing: _Drawing) -> None:
    y = drawing.y + 6
    drawing.parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
    for value in ticks(0.0, drawing.seconds, 16):
        place = drawing.x(value)
        drawing.parts.append(f'<line class="axis" x1="{place:.1f}" x2="{place:.1f}" y1="{y - 3}" y2="{y + 3}"/>')
        anchor = "end" if value >= 0.97 * drawing.seconds else "start" if value == 0 else "middle"
        drawing.parts.append(f'<text class="tick" x="{place:.1f}" y="{y + 14}" text-anchor="{anchor}">{value:g} s</text>')
    drawing.y = y + 20


def _moments(drawing: _Drawing, label: str, found: Sequence[tuple[float, str]], kind: str) -> None:
    """A row of moments with texts: prompts, changes."""
    if not found:
        return
    y = drawing.y
    drawing.label(label, y + 10)
    for t, _ in found:
        place = drawing.x(t)
        drawing.parts.append(f'<path class="{kind}-mark" d="M{place:.1f} {y + 9} l-4 -8 h8 z"/>')
    lines = drawing.texts([(t, text, kind) for t, text in found], y + 8)
    drawing.y += 10 + LINE * lines + 6


def _truth(drawing: _Drawing, line: JsonObject) -> None:
    if not line["spans"]:
        return
    y, seconds = drawing.y, 1 / line["fps"]
    drawing.label("truth", y + 9)
    for span in line["spans"]:
        first, last = drawing.x(span["a"]), drawing.x(max(span["b"], span["a"] + seconds / 3))
        said = escape(f"{span['a']:g} to {span['b']:g} s, {span['kind']}: {span['text']}")
        place = f'x="{first:.1f}" y="{y}" width="{max(3.0, last - first):.1f}" height="10" rx="2"'
        drawing.parts.append(f'<rect class="truth" {place}><title>{said}</title></rect>')
    lines = drawing.texts([(span["a"], span["text"] or span["kind"], "said") for span in line["spans"]], y + 10)
    drawing.y += 12 + LINE * lines + 6


def _stream(drawing: _Drawing, stream: JsonObject, line: JsonObject, colour: str) -> None:
    """One model's row: a thin line of silence, a bar for each utterance coloured by its verdict, missed spans hollow."""
    y = drawing.y
    drawing.label(stream["model"], y + 9, colour)
    drawing.parts.append(f'<line class="silence" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y + 5}" y2="{y + 5}" stroke="{colour}"/>')
    for index, span in enumerate(line["spans"]):
        if index not in stream["hit"]:
            first, last = drawing.x(span["a"]), drawing.x(max(span["b"], span["a"] + 0.3 / line["fps"]))
            missed = f'x="{first:.1f}" y="{y}" width="{max(3.0, last - first):.1f}" height="10" rx="2"'
            drawing.parts.append(
                f'<rect class="missed" {missed}><title>{escape("missed: " + (span["text"] or span["kind"]))}</title></rect>'
            )
    for said in stream["utterances"]:
        first, last = drawing.x(said["t"]), drawing.x(said["end"])
        title = escape(f"{said['t']:g} s: {said['text']}")
        bar = f'x="{first:.1f}" y="{y}" width="{max(3.0, last - first - 2):.1f}" height="10" rx="2"'
        drawing.parts.append(f'<rect class="{said["verdict"]}" {bar}><title>{title}</title></rect>')
    for t in stream["interrupted"]:
        place = drawing.x(t)
        drawing.parts.append(
            f'<path class="cut" d="M{place - 4:.1f} {y + 1} l8 8 m0 -8 l-8 8"><title>interrupted at {t:g} s</title></path>'
        )
    for t in stream["dropped"]:
        place = drawing.x(t)
        drawing.parts.append(f'<path class="drop" d="M{place:.1f} {y + 14} v-6"><title>frame left out at {t:g} s</title></path>')
    lines = drawing.texts([(said["t"], said["text"], "said") for said in stream["utterances"]], y + 10)
    drawing.y += 12 + LINE * lines + 6


def _poll(drawing: _Drawing, poll: JsonObject, colours: Mapping[str, int]) -> None:
    """One row for each model that was polled: a diamond for each asking, filled where the reply begins with yes."""
    for model, found in poll["models"].items():
        y, colour = drawing.y, COLOURS[colours[model] % len(COLOURS)]
        drawing.label(f"{model}, polled", y + 9, colour)
        for reply in found["replies"]:
            place, yes = drawing.x(reply["t"]), reply["text"].lower().startswith("yes")
            title = escape(f"{reply['t']:g} s: {reply['text']}")
            fill = colour if yes else "none"
            drawing.parts.append(
                f'<path d="M{place:.1f} {y} l5 5 l-5 5 l-5 -5 z" fill="{fill}" stroke="{colour}"><title>{title}</title></path>'
            )
        final = [(found["replies"][-1]["t"], found["final"], "said")] if found["final"] and found["replies"] else []
        drawing.y += 12 + LINE * drawing.texts(final, y + 10) + 6


def _width(text: str) -> float:
    """About how wide a text is drawn; letters of East Asia and stand-ins for broken characters take twice as much."""
    return LETTER * sum(2 if ord(letter) > 0x2E80 else 1 for letter in text)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
