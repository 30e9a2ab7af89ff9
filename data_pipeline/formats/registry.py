"""LlamaFactory's registry, `dataset_info.json`: which entries can be imported, and how their rows are read."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.formats.alpaca import AlpacaFormat
from data_pipeline.formats.importing import ImportOptions
from data_pipeline.formats.parsed import MediaColumns, RowFormat
from data_pipeline.formats.report import ImportReport, write_report
from data_pipeline.formats.rows import read_json, row_files
from data_pipeline.formats.sharegpt import PLAIN_TAGS, ShareGptFormat, Tags
from data_pipeline.formats.source import OnProgress, RowSource, import_source
from data_pipeline.shards.annotations import write_annotations
from model.errors import InputError

REPORT = "import.report.json"
_FORMATTINGS = ("alpaca", "sharegpt", "openai")
_PREFERENCE_COLUMNS = ("chosen", "rejected", "kto_tag")
_REMOTE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")


@dataclass
class RegistryReport:
    """What became of the entries; each name is in one of the three."""

    imported: dict[str, ImportReport] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Name -> why the entry is not for us: it is remote, its file is missing, it holds preferences."""
    failed: dict[str, str] = field(default_factory=dict)
    """Name -> why no row of a local entry could be used."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "imported": {name: report.to_dict() for name, report in self.imported.items()},
            "skipped": self.skipped,
            "failed": self.failed,
        }


def registry_source(registry: str | os.PathLike[str], name: str) -> RowSource:
    """The rows of one entry.

    Raises:
        InputError: there is no such entry, or it cannot be imported.
    """
    path = Path(registry)
    return _named(path, _read(path), name)


def import_registry(
    registry: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    options: ImportOptions,
    names: Sequence[str] | None = None,
    on_entry: Callable[[str], OnProgress | None] | None = None,
) -> RegistryReport:
    """Write `out_dir/NAME.jsonl` for every entry with a local file, and `import.report.json` about all entries.

    Args:
        names: entries to import; None takes all that can be. A name that cannot be imported is an error.
        on_entry: called with the name of each entry that is begun; returns what is to be told of its progress.

    Raises:
        InputError: the registry cannot be read, it lacks a name, or nothing is imported.
    """
    path, out = Path(registry), Path(out_dir)
    content = _read(path)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a folder for the annotation files")
    if names is not None:
        sources = {name: _named(path, content, name) for name in names}
        report = RegistryReport()
    else:
        sources, report = _importable(path, content)
    written: dict[str, str] = {}
    for name, source in sources.items():
        if (twin := written.setdefault(file_name(name), name)) != name:
            report.failed[name] = f"its file {file_name(name)} is that of the entry {twin}; import it by itself with --name"
            continue
        rows = ImportReport()
        on_progress = on_entry(name) if on_entry is not None else None
        try:
            write_annotations(out / file_name(name), import_source(source, options, rows, on_progress))
        except InputError as error:
            report.failed[name] = str(error)
        else:
            report.imported[name] = rows
    faults = {**report.failed, **report.skipped}
    first = next((f"{name}: {reason}" for name, reason in faults.items()), "it has no entries")
    if not report.imported:
        raise InputError(f"no entry of {path} can be imported; {first}")
    write_report(out / REPORT, report.to_dict())
    if names is not None and report.failed:
        raise InputError(f"{len(report.failed)} of the {len(sources)} entries named of {path} cannot be imported; {first}")
    return report


def file_name(name: str) -> str:
    """Annotation file of an entry."""
    return re.sub(r"[^\w.-]", "_", name) + ".jsonl"


def _importable(path: Path, content: Mapping[str, Any]) -> tuple[dict[str, RowSource], RegistryReport]:
    sources, report = {}, RegistryReport()
    for name in content:
        try:
            sources[name] = _entry(path.parent, name, content[name])
        except InputError as error:
            report.skipped[name] = str(error)
    return sources, report


def _read(path: Path) -> Mapping[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} is no registry; it must be one JSON object from names to entries (dataset_info.json)")
    return content


def _named(path: Path, content: Mapping[str, Any], name: str) -> RowSource:
    if name not in content:
        raise InputError(f"{path} has no entry {name!r}; it has {', '.join(sorted(content)[:20])}")
    try:
        return _entry(path.parent, name, content[name])
    except InputError as error:
        raise InputError(f"{path} entry {name}: {error}") from None


def _entry(folder: Path, name: str, entry: Any) -> RowSource:
    """Raises InputError with the reason alone."""
    if not isinstance(entry, dict):
        raise InputError("it is not an object; give it a file_name")
    file = entry.get("file_name")
    if not isinstance(file, str) or not file:
        remote = next((f"{key} {entry[key]}" for key in _REMOTE if key in entry), "nothing")
        raise InputError(f"it names no local file (file_name) but {remote}; download it and name the file")
    columns, tags = (_names(entry, key) for key in ("columns", "tags"))
    if entry.get("ranking") or any(columns.get(c) for c in _PREFERENCE_COLUMNS):
        raise InputError("it holds preferences (ranking or kto_tag); only texts and dialogues can be imported")
    formatting = entry.get("formatting", "alpaca")
    if formatting not in _FORMATTINGS:
        raise InputError(f"its formatting is {formatting!r}; use one of {', '.join(_FORMATTINGS)}")
    row_format = _format(formatting, columns, tags, "columns" in entry)
    return RowSource(name, row_files(folder / file), lambda rows: row_format, folder)


def _names(entry: Mapping[str, Any], key: str) -> dict[str, str]:
    """The strings of columns or tags; null means that there is none."""
    values = entry.get(key) or {}
    if not isinstance(values, dict) or not all(v is None or isinstance(v, str) for v in values.values()):
        raise InputError(f"its field {key} must be an object from our names to the file's names")
    return {k: v for k, v in values.items() if v is not None}


def _format(formatting: str, columns: Mapping[str, str], tags: Mapping[str, str], named: bool) -> RowFormat:
    media = MediaColumns(**{f.name: columns[f.name] for f in dataclasses.fields(MediaColumns) if f.name in columns})
    if formatting == "alpaca":
        if not named:
            return AlpacaFormat(media=media)
        own = {key: columns.get(key) for key in ("prompt", "query", "response", "history", "system")}
        return AlpacaFormat(**own, media=media)
    known = {f.name for f in dataclasses.fields(Tags)}
    base = PLAIN_TAGS if formatting == "openai" else Tags()
    return ShareGptFormat(
        columns.get("messages", "messages" if formatting == "openai" else "conversations"),
        columns.get("system", "system"),
        dataclasses.replace(base, **{k: v for k, v in tags.items() if k in known}),
        media,
    )
