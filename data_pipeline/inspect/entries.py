"""Samples as they are stored, sound or not, from shards and annotation files."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from model.errors import InputError

LINES_PER_PART = 1000
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)")
"""Key and ending of a member's name, cut at the first dot as WebDataset does."""


@dataclass(frozen=True)
class Part:
    """A piece of a source that is read at once: a shard, or some lines of an annotation file."""

    source: str
    """The folder or file that it belongs to."""
    path: Path
    first_line: int = 0
    """Counted from 0; only for annotation files."""
    offset: int = 0
    """Bytes in front of that line."""

    @property
    def is_shard(self) -> bool:
        return self.path.suffix == ".tar"


@dataclass
class Entry:
    """One sample, unchecked."""

    key: str
    where: str
    """Shard, or file and line."""
    text: bytes | None
    """The JSON of its fields; None where a shard has no such member."""
    members: dict[str, bytes | Path] = field(default_factory=dict)
    """Content or path of each media file by the ending that `Media.file` names."""


def parts_of(source: str) -> list[Part]:
    """The pieces of a folder of shards or of an annotation file, in stored order.

    Raises:
        InputError: there is nothing of the kind.
    """
    path = Path(source)
    if path.is_dir():
        shards = sorted(path.rglob("*.tar"))
        if not shards:
            raise InputError(f"{source} holds no shards (*.tar); write some with `moss data prepare`")
        return [Part(source, shard) for shard in shards]
    if not path.is_file():
        raise InputError(f"{source} does not exist; name a folder of shards or an annotation file (.jsonl)")
    if path.suffix == ".tar":
        return [Part(source, path)]
    parts, offset = [], 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            if number % LINES_PER_PART == 0:
                parts.append(Part(source, path, number, offset))
            offset += len(line)
    if not parts:
        raise InputError(f"{source} is empty; name a folder of shards or an annotation file (.jsonl)")
    return parts


def read_entries(part: Part) -> Iterator[Entry]:
    """The samples of a part.

    Raises:
        InputError: the file is damaged; what stands before the damage was given.
    """
    return _read_shard(part.path) if part.is_shard else _read_lines(part)


def spread(parts: Sequence[Part], count: int) -> list[Part]:
    """At most `count` of the parts, evenly spaced from the first on."""
    if len(parts) <= count:
        return list(parts)
    return [parts[i * len(parts) // count] for i in range(count)]


def _read_shard(path: Path) -> Iterator[Entry]:
    try:
        with tarfile.open(path, "r:") as tar:
            entry: Entry | None = None
            for member in tar:
                found = _MEMBER.fullmatch(member.name) if member.isfile() else None
                if found is None:
                    continue
                key, ending = found.groups()
                if entry is None or entry.key != key:
                    if entry is not None:
                        yield entry
                    entry = Entry(key, path.name, None)
                content = tar.extractfile(member)
                assert content is not None  # a regular file
                if ending == "json":
                    entry.text = content.read()
                else:
                    entry.members[ending] = content.read()
            if entry is not None:
                yield entry
            _check_end(path, tar.offset)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"shard {path} cannot be read to its end: {error}") from None


def _check_end(path: Path, offset: int) -> None:
    """Python's reader takes a header that it cannot understand for the end; a real end is a block of zeros."""
    with path.open("rb") as file:
        file.seek(offset)
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE or any(block):
        raise InputError(f"shard {path} cannot be read to its end: there is no header of a member at byte {offset}")


def _read_lines(part: Part) -> Iterator[Entry]:
    folder = part.path.parent
    with part.path.open("rb") as file:
        file.seek(part.offset)
        for number, line in enumerate(islice(file, LINES_PER_PART), start=part.first_line + 1):
            if line.strip():
                yield _parse_line(line, f"{part.path.name} line {number}", folder)


def _parse_line(line: bytes, where: str, folder: Path) -> Entry:
    """Key and media paths are taken out; what is left are the sample's fields, as a shard holds them."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return Entry("", where, line)
    if not isinstance(values, dict):
        return Entry("", where, line)
    key, files = values.pop("key", ""), values.pop("files", {})
    paths: dict[str, bytes | Path] = {}
    if isinstance(files, dict):
        paths = {str(name): Path(os.path.normpath(folder / path)) for name, path in files.items() if isinstance(path, str)}
    return Entry(key if isinstance(key, str) else "", where, json.dumps(values).encode(), paths)
