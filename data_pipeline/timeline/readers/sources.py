"""Files of annotations to one object a video, whichever way they are nested."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipeline.formats.report import RowError
from data_pipeline.formats.rows import read_json, read_rows, row_files
from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.row import Row
from model.errors import InputError

CONTAINERS = ("database", "videos", "data", "results", "annotations", "items", "rows")
"""Fields of a file's only object that hold its videos."""
ID = ("video_id", "video_uid", "vid", "video_name", "youtube_id", "clip_id", "id", "uid", "key")
FILE = ("video", "video_path", "video_file", "file", "file_name", "filename", "path", "media")

GATHERED, WHERE = "\0rows", "\0where"
"""Fields of our own: rows of one video, and which row each was."""


def video_name(row: Row) -> str:
    """What a row calls its video: an id, else the file; empty where it names none."""
    return row.text(ID[:5]) or row.text(FILE) or row.text(ID[5:])


def video_rows(path: Path, options: ReadOptions, parts: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    """Name of a video and its object, in order of the files.

    A row that holds one of `parts` is a video; other rows are single items (a CSV, or a list of captions) and are gathered by
    video, in order of their first row; `gathered` gives them back.

    Raises:
        InputError: a file cannot be read at all, or a row cannot and the options do not pass over faults.
    """
    singles: dict[str, list[dict[str, Any]]] = {}
    heads: dict[str, Row] = {}
    for file in row_files(path):
        for name, row in _rows_of(file, options):
            if row.name(parts) is not None:
                yield name, row
                continue
            name = name if file.suffix.lower() == ".json" and name else video_name(row) or name or file.stem
            heads.setdefault(name, row)
            singles.setdefault(name, []).append({**row.values, WHERE: row.where})
    for name, rows in singles.items():
        yield name, Row({**_shared(rows), GATHERED: rows}, heads[name].where)


def gathered(row: Row) -> list[Row] | None:
    """Rows of a flat list about one video, each with its own place; None where the row is the object of a video."""
    items = row.values.get(GATHERED)
    if items is None:
        return None
    return [Row({k: v for k, v in r.items() if k != WHERE}, r[WHERE]) for r in items]


def _shared(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Fields with one value in all rows, such as the duration."""
    first = rows[0]
    return {k: v for k, v in first.items() if k != WHERE and all(r.get(k) == v for r in rows)}


def _rows_of(file: Path, options: ReadOptions) -> Iterator[tuple[str, Row]]:
    """Rows of one file; the name is the key of an object of videos, else what the row says."""
    content = _document(file) if file.suffix.lower() == ".json" else None
    if isinstance(content, dict):
        yield from _of_object(content, file, options)
        return
    for number, values in enumerate(read_rows([file]) if content is None else content, start=1):
        where = f"{file.name} row {number}"
        try:
            if isinstance(values, RowError):
                raise InputError(f"{values}; the row cannot be read")
            if not isinstance(values, dict):
                raise InputError(f"{where} is {str(values)[:60]!r}; it must be an object")
            row = Row(values, where)
            yield video_name(row), row
        except InputError as error:
            options.fault(error)


def _document(file: Path) -> dict[str, Any] | list[Any] | None:
    """The content of a JSON file; None where it holds JSON lines."""
    try:
        content = read_json(file)
    except InputError:
        with file.open("rb") as opened:  # lines are read as such, and each says by itself what is wrong
            if not opened.readline().rstrip().endswith(b"}"):
                raise
        return None
    if not isinstance(content, dict | list):
        raise InputError(f"{file} is {str(content)[:60]!r}; it must hold a list or an object")
    return content


def _of_object(content: dict[str, Any], file: Path, options: ReadOptions) -> Iterator[tuple[str, Row]]:
    """Videos of an object: by id, in a container, or the object itself."""
    lowered = {str(k).lower(): k for k in content}
    inner = next((content[lowered[c]] for c in CONTAINERS if c in lowered and isinstance(content[lowered[c]], dict | list)), None)
    alone = Row(content, file.name)
    if inner is None or (isinstance(inner, list) and alone.name(("duration", *FILE)) is not None):
        if not all(isinstance(v, dict | list) for v in content.values()) or alone.name(("timestamps",)) is not None:
            yield video_name(alone) or file.stem, alone
            return
        inner = content
    pairs = inner.items() if isinstance(inner, dict) else ((None, v) for v in inner)
    for number, (key, values) in enumerate(pairs, start=1):
        where = f"{file.name} video {key}" if key is not None else f"{file.name} row {number}"
        if isinstance(values, list) and key is not None and all(isinstance(v, dict) for v in values):
            yield from ((key, Row(v, f"{where} item {i}")) for i, v in enumerate(values, start=1))
        elif isinstance(values, dict):
            row = Row(values, where)
            yield str(key) if key is not None else video_name(row), row
        else:
            options.fault(InputError(f"{where} is {str(values)[:60]!r}; it must be an object"))
