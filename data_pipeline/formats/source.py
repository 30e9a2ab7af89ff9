"""One source of rows: a file, a folder of files, or an entry of a registry; its format, told or found out."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_pipeline.formats.alpaca import AlpacaFormat
from data_pipeline.formats.importing import ImportOptions, import_rows
from data_pipeline.formats.llava import MEDIA_KEYS, LlavaFormat
from data_pipeline.formats.parsed import RowFormat
from data_pipeline.formats.report import ImportReport
from data_pipeline.formats.rows import count_rows, read_rows, row_files
from data_pipeline.formats.sharegpt import PLAIN_TAGS, ShareGptFormat, Tags
from data_pipeline.shards.annotations import Annotation
from model.errors import InputError

LOOKED_AT = 200
"""Rows that decide on the format."""

OnProgress = Callable[[int, int], None]
"""Called with (rows read, rows in all, as far as known)."""


@dataclass(frozen=True)
class RowSource:
    """Where rows are and how they are read."""

    label: str
    files: list[Path]
    find_format: Callable[[Sequence[Any]], RowFormat]
    """Says from the first rows how all are read."""
    media_folder: Path
    """Folder of relative media paths, unless the options name another."""


def source_of(path: str | os.PathLike[str], form: str = "auto") -> RowSource:
    """A file or folder of rows.

    Raises:
        InputError: it does not exist, or the format is not known.
    """
    place = Path(path)
    files = row_files(place)
    if form not in _FINDERS:
        raise InputError(f"format of rows is {form!r}; use one of {', '.join(_FINDERS)}, or subtitles")
    folder = place if place.is_dir() else place.parent
    return RowSource(place.name if place.is_dir() else place.stem, files, _FINDERS[form], folder)


def import_source(
    source: RowSource, options: ImportOptions, report: ImportReport, on_progress: OnProgress | None = None
) -> Iterator[Annotation]:
    """Samples of all usable rows, in order.

    Raises:
        InputError: a file cannot be read, or no row can be used.
    """
    total = count_rows(source.files) if on_progress is not None else 0
    rows = read_rows(source.files)
    first = list(itertools.islice(rows, LOOKED_AT))
    row_format = source.find_format(first)

    def on_row(done: int) -> None:
        if on_progress is not None:
            on_progress(done, max(total, done))

    files = options.media_files(source.media_folder)
    yield from import_rows(itertools.chain(first, rows), row_format, source.label, files, options, report, on_row)


def find_format(rows: Sequence[Any]) -> RowFormat:
    """The format that the first rows speak of; share-GPT where they say nothing."""
    known = [row for row in rows if isinstance(row, Mapping)]
    talks = [row for row in known if "conversations" in row or "messages" in row]
    if talks:
        llava = any(key in row for row in talks for key in MEDIA_KEYS) and all("messages" not in row for row in talks)
        return LlavaFormat() if llava else find_sharegpt(talks)
    if any("instruction" in row for row in known):
        return AlpacaFormat()
    if any(isinstance(row.get("text"), str) for row in known):
        return AlpacaFormat(prompt="text", query=None, response=None)
    return find_sharegpt(known)


def find_sharegpt(rows: Sequence[Any]) -> RowFormat:
    """Share-GPT with the names of column and tags that the first row with a message has."""
    for row in rows:
        for column in ("conversations", "messages"):
            turns = row.get(column) if isinstance(row, Mapping) else None
            if isinstance(turns, list) and turns and isinstance(turns[0], Mapping):
                return ShareGptFormat(column, tags=Tags() if "from" in turns[0] else PLAIN_TAGS)
    return ShareGptFormat("messages", tags=PLAIN_TAGS)


_FINDERS: dict[str, Callable[[Sequence[Any]], RowFormat]] = {
    "auto": find_format,
    "sharegpt": find_sharegpt,
    "alpaca": lambda rows: AlpacaFormat(),
    "llava": lambda rows: LlavaFormat(),
}
