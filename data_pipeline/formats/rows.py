"""Reading files of rows: JSON lists, JSON lines, CSV, text, and parquet or arrow where pyarrow is installed."""

from __future__ import annotations

import codecs
import csv
import importlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_pipeline.formats.report import RowError
from model.errors import InputError

LARGEST_CSV_FIELD = 1 << 28
"""Bytes; the csv module's own bound of 128 KiB is below what an answer may have."""


def read_json(path: Path) -> Any:
    """A whole JSON file.

    Raises:
        InputError: it is missing or is not JSON.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # also a number of more digits than Python reads
        raise InputError(f"{path} is not JSON: {error}") from None


def row_files(path: Path) -> list[Path]:
    """The file, or the files of a folder by name; hidden ones are left out.

    Raises:
        InputError: there is no such file, the folder is empty or mixes kinds, or the kind is not known.
    """
    try:
        folder, present = path.is_dir(), path.exists()
    except OSError as error:  # a name that no file can have
        raise InputError(f"{str(path)[:200]} cannot be looked up: {error.strerror}") from None
    if folder:
        files = sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
        kinds = sorted({p.suffix.lower() for p in files})
        if len(kinds) != 1:
            raise InputError(f"folder {path} holds {', '.join(kinds) or 'no files'}; it must hold rows in files of one kind")
    elif present:
        files = [path]
    else:
        raise InputError(f"{path} does not exist")
    if files[0].suffix.lower() not in READERS:
        raise InputError(f"{files[0]} is no file of rows; use one of {', '.join(sorted(READERS))}")
    return files


def count_rows(files: list[Path]) -> int:
    """Rows of files in which a row is a line, for a progress bar; 0 where that is not known beforehand."""
    total = 0
    for path in files:
        if path.suffix.lower() not in (".jsonl", ".txt"):
            return 0
        with path.open("rb") as file:
            total += sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return total


def read_rows(files: list[Path]) -> Iterator[Any]:
    """Every row in order. A line that is not JSON is given as a `RowError`, so that the rows behind it are not lost.

    Only a JSON list is held in memory as a whole.

    Raises:
        InputError: a file is not of its kind.
    """
    for path in files:
        try:
            yield from READERS[path.suffix.lower()](path)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 ({error}); store it again as UTF-8") from None


def _json(path: Path) -> Iterator[Any]:
    """A list of rows; also JSON lines under this name."""
    if _holds_lines(path):
        yield from _lines(path)
        return
    rows = read_json(path)
    if not isinstance(rows, list):
        raise InputError(f"{path} must hold a JSON list of rows; of a registry name an entry with --name or use --dataset-info")
    yield from rows


def _holds_lines(path: Path) -> bool:
    """Whether a first line is an object by itself and another line follows."""
    with path.open("rb") as file:
        first = file.readline().removeprefix(codecs.BOM_UTF8)
        if not first.lstrip().startswith(b"{"):
            return False
        try:
            json.loads(first.decode("utf-8"))
        except (ValueError, RecursionError):
            return False
        return any(line.strip() for line in file)


def _lines(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if not line.strip():
                continue
            try:
                yield json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                yield RowError("line is not UTF-8", f"{path.name} line {number}: {error}")
            except (ValueError, RecursionError) as error:
                yield RowError("line is not JSON", f"{path.name} line {number}: {error}")


def _csv(path: Path) -> Iterator[Any]:
    csv.field_size_limit(LARGEST_CSV_FIELD)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield from csv.DictReader(file, restkey="further columns", restval="")
    except csv.Error as error:
        raise InputError(f"{path} is not CSV: {error}") from None


def _text(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as file:
        for line in file:
            if line.strip():
                yield {"text": line.rstrip("\n")}


def _parquet(path: Path) -> Iterator[Any]:
    parquet = _pyarrow("pyarrow.parquet", path)
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=1024):
            yield from batch.to_pylist()
    except (OSError, ValueError) as error:  # pyarrow's own errors are of these kinds
        raise InputError(f"{path} is not parquet: {error}") from None


def _arrow(path: Path) -> Iterator[Any]:
    arrow = _pyarrow("pyarrow", path)
    try:
        with arrow.memory_map(str(path)) as source:
            try:
                batches: Any = arrow.ipc.open_stream(source)
            except arrow.ArrowInvalid:
                file = arrow.ipc.open_file(source)
                batches = (file.get_batch(i) for i in range(file.num_record_batches))
            for batch in batches:
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not an arrow file: {error}") from None


def _pyarrow(module: str, path: Path) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"{path} needs pyarrow; install it (pip install pyarrow) or store the rows as jsonl") from None


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".json": _json,
    ".jsonl": _lines,
    ".csv": _csv,
    ".txt": _text,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
