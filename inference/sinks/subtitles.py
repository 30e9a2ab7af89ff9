"""What is said as SubRip subtitles: each utterance with its beginning and end in the stream's time."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from inference.evaluation.schema import TraceEvent
from inference.sinks.growing_file import GrowingFile

LINE_LENGTH = 42
MOST_CHARACTERS = 2 * LINE_LENGTH
"""Of a cue: two lines, as is usual; an utterance that is longer continues in the next cue."""
MOST_SECONDS = 7.0
SHORTEST = 0.5
"""Seconds that a cue is shown at least, if the next one leaves it so long."""
_SENTENCE_END = re.compile(r"[.!?。！？…][\"')\]]*$")
_ENDS = frozenset({"silence", "turn_interrupted", "turn_start", "stop", "reset", "end"})
"""Kinds of events that end an utterance."""


@dataclass(frozen=True)
class Cue:
    """Text shown from `begin` to `end` seconds."""

    begin: float
    end: float
    text: str


class Utterances:
    """Turns events into cues; a cue is given once its end is known."""

    def __init__(self) -> None:
        self._begin = 0.0
        self._text = ""
        self._waiting: Cue | None = None

    def feed(self, event: TraceEvent) -> Iterator[Cue]:
        """The cues that this event completes."""
        if event.kind == "token" and event.text:
            if self._text and self._is_full(event):
                yield from self._close(event.t)
            if not self._text:
                self._begin = event.t
            self._text += event.text
        elif event.kind in _ENDS:
            yield from self._close(event.t)
            if event.kind == "end":
                yield from self._flush(None)

    def _is_full(self, event: TraceEvent) -> bool:
        """A new cue begins between words only: behind a sentence, or where it would grow too long."""
        if not event.text[0].isspace() and event.text[0].isascii():
            return len(self._text) > 4 * MOST_CHARACTERS
        long = len(self._text) + len(event.text) > MOST_CHARACTERS or event.t - self._begin >= MOST_SECONDS
        return long or (bool(_SENTENCE_END.search(self._text)) and len(self._text) > LINE_LENGTH)

    def _close(self, t: float) -> Iterator[Cue]:
        text = " ".join(self._text.split())
        self._text = ""
        if text:
            yield from self._flush(self._begin)
            self._waiting = Cue(self._begin, max(t, self._begin), text)

    def _flush(self, following: float | None) -> Iterator[Cue]:
        """Let out the cue before one that begins at `following`: lengthened to be legible, but not into the next."""
        cue, self._waiting = self._waiting, None
        if cue is not None:
            end = max(cue.end, cue.begin + SHORTEST)
            end = end if following is None else max(min(end, following), cue.begin)
            yield Cue(cue.begin, end, cue.text)


class SubtitleSink:
    """Writes a SubRip file (`FILE.part` while the stream runs).

    The times are the stream's, which for a file are those of the file: the subtitles fit the video.

    Args:
        path: FILE.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = GrowingFile(path, "--srt")
        self._utterances = Utterances()
        self._count = 0

    def __call__(self, event: TraceEvent) -> None:
        for cue in self._utterances.feed(event):
            self._count += 1
            lines = textwrap.fill(cue.text, LINE_LENGTH, break_long_words=False, break_on_hyphens=False)
            self._file.write(f"{self._count}\n{timestamp(cue.begin)} --> {timestamp(cue.end)}\n{lines}\n\n")

    def close(self, *, whole: bool) -> None:
        self._file.close(whole=whole)


def timestamp(seconds: float) -> str:
    """HH:MM:SS,mmm."""
    milliseconds = round(seconds * 1000)
    hours, rest = divmod(milliseconds, 3_600_000)
    minutes, rest = divmod(rest, 60_000)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02},{rest % 1000:03}"
