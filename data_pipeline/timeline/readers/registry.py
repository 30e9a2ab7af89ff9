"""Formats of annotations by name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.timeline import Timeline
from model.errors import InputError


class Read(Protocol):
    """What the function of a reader looks like."""

    def __call__(self, path: Path, options: ReadOptions) -> Iterator[Timeline]: ...


@dataclass(frozen=True)
class Reader:
    """One format; its module is loaded when it is first used."""

    module: str
    """Below this package."""
    function: str
    help: str

    def read(self, path: Path, options: ReadOptions) -> Iterator[Timeline]:
        """Timelines, one at a time."""
        function = getattr(importlib.import_module(f"{__package__}.{self.module}"), self.function)
        return cast(Read, function)(path, options)


READERS = {
    "captions": Reader("captions", "read_captions", "dense captions, flat or by level (JSON, JSONL, CSV)"),
    "subtitles": Reader("subtitles", "read_subtitle_files", "SRT or WebVTT files beside clips"),
    "events": Reader("events", "read_events", "labelled stretches and narrations (ActivityNet, COIN, Ego4D, CSV)"),
    "qa": Reader("qa", "read_qa", "questions and answers with evidence spans (JSON, JSONL, CSV)"),
    "clips": Reader("clips", "read_clips", "clips with lines by second; `bundled` are those that come with the package"),
    "timelines": Reader("timelines", "read_own", "our own JSON lines"),
}


def read_source(kind: str, path: str | os.PathLike[str], options: ReadOptions | None = None) -> Iterator[Timeline]:
    """Timelines of a file or folder, in order, each as `check_timeline` wants it but not normalised.

    Raises:
        InputError: the kind is not known, nothing can be read, or a row cannot be used and the options do not pass over faults.
    """
    if kind not in READERS:
        raise InputError(f"kind of source is {kind!r}; use one of {', '.join(READERS)}")
    return READERS[kind].read(Path(path), options or ReadOptions())
