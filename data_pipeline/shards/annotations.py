"""Annotation files: one sample a line, with the paths of its media. The step between foreign formats and shards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_pipeline.schema import Sample
from data_pipeline.shards.schema import sample_from_dict, sample_to_dict
from model.errors import InputError


@dataclass
class Annotation:
    """One line."""

    key: str
    sample: Sample
    files: dict[str, Path] = field(default_factory=dict)
    """`media.file` -> path of the content."""


def write_annotations(path: str | os.PathLike[str], annotations: Iterable[Annotation]) -> int:
    """Write a file atomically; media paths are stored relative to its folder.

    Returns:
        Number of lines.

    Raises:
        InputError: the path is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"{target} is a folder; give the name of an annotation file, such as {target / 'sft.jsonl'}")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    count = 0
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for annotation in annotations:
                files = {name: os.path.relpath(source, target.parent) for name, source in annotation.files.items()}
                line = {"key": annotation.key, "files": files, **sample_to_dict(annotation.sample)}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += 1
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def read_annotations(path: str | os.PathLike[str]) -> Iterator[Annotation]:
    """Read and check line by line.

    Raises:
        InputError: the file is missing, or a line is not a sound sample; names the line.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"annotations {source} do not exist; make them with `moss data import`")
    with source.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield parse_annotation(line, f"{source} line {number}", source.parent)


def parse_annotation(line: bytes, where: str, folder: Path) -> Annotation:
    """Check one line.

    Args:
        where: what messages call it, such as `sft.jsonl line 3`.
        folder: media paths count from it.

    Raises:
        InputError: it is not a sound sample.
    """
    try:
        values: Any = json.loads(line)
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, or nested beyond all measure
        raise InputError(f"{where} is not JSON: {error}") from None
    if not isinstance(values, dict) or not isinstance(values.get("key"), str):
        raise InputError(f"{where} must be an object with a text field key")
    files = values.pop("files", {})
    if not isinstance(files, dict) or not all(isinstance(v, str) for v in files.values()):
        raise InputError(f"{where} field files must map media names to paths")
    key = values.pop("key")
    sample = sample_from_dict(values, where)
    missing = [m.file for m in sample.media if m.file not in files]
    if missing:
        raise InputError(f"{where} field files lacks {', '.join(missing)}")
    return Annotation(key, sample, {name: Path(os.path.normpath(folder / source)) for name, source in files.items()})
