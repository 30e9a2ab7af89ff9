"""SRT and WebVTT to timed cues, as leniently as players read them."""

from __future__ import annotations

import codecs
import html
import os
import re
from pathlib import Path
from typing import NamedTuple

from model.errors import InputError

SUFFIXES = (".srt", ".vtt")
VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".3gp", ".flv", ".wmv")
"""Of clips that subtitles may lie beside."""

_STAMP = r"(?:(\d{1,6}):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{1,9}))?"
_TIMING = re.compile(rf"\s*{_STAMP}\s*-->\s*{_STAMP}(?:\s.*)?")  # whatever follows are settings of the place on the screen
_TAG = re.compile(r"</?(?:[A-Za-z][^<>]*|\d[\d:.]*)>|\{\\[^{}]*\}")  # <i>, <c.blue>, <v Ann>, <00:01.500>, {\an8}
_SPECIAL = re.compile(r"<\|[^<>]*\|>")  # a cue must not bring tokens of the chat template
_TOUCHING = 0.2
"""Seconds between two cues that still count as one text that goes on."""


class Cue(NamedTuple):
    """One text on the screen."""

    begin: float
    """Seconds."""
    end: float
    text: str
    """Without tags; lines are separated by a newline."""


def read_subtitles(path: str | os.PathLike[str]) -> list[Cue]:
    """The cues of a file in order of time, with rolling captions collapsed.

    Raises:
        InputError: the file is missing, is not UTF-8 (or UTF-16 with a byte order mark), or holds no cue.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"subtitles {file} do not exist")
    content = file.read_bytes()
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"subtitles {file} are not UTF-8 ({error}); convert them, as with iconv -f ... -t UTF-8") from None
    cues = collapse_rolling(parse_subtitles(text))
    if not cues:
        raise InputError(f"subtitles {file} hold no cue with a text; they must be SRT or WebVTT")
    return cues


def parse_subtitles(text: str) -> list[Cue]:
    """Cues with a text, in order of time. Numbers, identifiers, headers, styles and notes are passed over.

    A cue of WebVTT ends with an empty line; one of SRT with the next line of times, since many files have empty lines inside.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    empty_ends = lines[0].startswith("WEBVTT")
    timings = [(i, m) for i, line in enumerate(lines) if "-->" in line and (m := _TIMING.fullmatch(line))]
    cues = []
    for number, (place, match) in enumerate(timings):
        last = timings[number + 1][0] if number + 1 < len(timings) else len(lines)
        body = lines[place + 1 : last]
        if empty_ends:
            body = body[: body.index("")] if "" in body else body
        elif number + 1 < len(timings):
            body = _without_number(body)
        shown = "\n".join(filter(None, map(_clean, body)))
        begin, end = _seconds(match.groups()[:4]), _seconds(match.groups()[4:])
        if shown:
            cues.append(Cue(begin, max(begin, end), shown))
    return sorted(cues, key=lambda cue: cue[:2])


def collapse_rolling(cues: list[Cue]) -> list[Cue]:
    """Every text once: automatic captions show a line again while the next one grows under it, or the same text in pieces."""
    kept: list[Cue] = []
    before: Cue | None = None
    for cue in cues:
        text = cue.text
        if before is not None and cue.begin <= before.end + _TOUCHING:
            text = _new_part(before.text, cue.text)
        if text:
            kept.append(cue._replace(text=text))
        elif kept:  # the same text, on the screen for longer
            kept[-1] = kept[-1]._replace(end=max(kept[-1].end, cue.end))
        before = cue
    return kept


def _new_part(before: str, now: str) -> str:
    """What `now` shows that `before` did not: without leading lines that ended `before`, or the words that it goes on from."""
    old, new = before.split("\n"), now.split("\n")
    repeated = next((n for n in range(min(len(old), len(new)), 0, -1) if old[-n:] == new[:n]), 0)
    if repeated:
        return "\n".join(new[repeated:])
    words = " ".join(old).split()
    flat = " ".join(new).split()
    if len(words) > 1 and len(flat) > len(words) and flat[: len(words)] == words:
        return " ".join(flat[len(words) :])
    return now


def _without_number(body: list[str]) -> list[str]:
    """Without the line that numbers the next cue."""
    end = len(body)
    while end and not body[end - 1].strip():
        end -= 1
    numbered = end and body[end - 1].strip().isdigit()
    return body[: end - 1] if numbered else body[:end]


def _clean(line: str) -> str:
    plain = html.unescape(_TAG.sub("", line))
    while _SPECIAL.search(plain):  # taking one out may leave another: <|a<|b|>|>
        plain = _SPECIAL.sub("", plain)
    return " ".join(plain.split())


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = parts
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return float(f"{whole}.{fraction or 0}")
