"""Files of rows, and importing them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_pipeline.formats.importing import ImportOptions
from data_pipeline.formats.registry import registry_source
from data_pipeline.formats.report import ImportReport
from data_pipeline.formats.source import import_source, source_of
from data_pipeline.shards.annotations import Annotation


def save(folder: Path, rows: Any, name: str = "rows.json") -> Path:
    """A JSON file, or JSON lines for a name that ends so."""
    text = "\n".join(map(json.dumps, rows)) if name.endswith(".jsonl") else json.dumps(rows)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def import_file(path: Path, name: str | None = None, form: str = "auto", **options: Any) -> tuple[list[Annotation], ImportReport]:
    """Everything that `moss data import` makes of a file, or of the entry `name` of a registry."""
    report = ImportReport()
    source = registry_source(path, name) if name is not None else source_of(path, form)
    return list(import_source(source, ImportOptions(**options), report)), report
