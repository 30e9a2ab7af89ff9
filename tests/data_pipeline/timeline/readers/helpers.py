"""Sources on disk, read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from data_pipeline.timeline.readers.options import ReadOptions
from data_pipeline.timeline.readers.registry import read_source
from data_pipeline.timeline.timeline import Timeline


def write(path: Path, content: Any) -> Path:
    """JSON, or JSON lines for a `.jsonl`, or a text as it is."""
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    else:
        path.write_text(json.dumps(content), encoding="utf-8")
    return path


def read(kind: str, path: Path, **options: Any) -> list[Timeline]:
    return list(read_source(kind, path, ReadOptions(**options)))


def told(timeline: Timeline) -> list[tuple[str, float, float | None, str]]:
    return [(s.level, s.begin, s.end, s.text) for s in timeline.segments]
