"""Writing one group of annotation lines as tars: what a worker process of `moss data prepare` does."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import webdataset

from data_pipeline.shards.annotations import Annotation
from data_pipeline.shards.media_info import fill_info
from data_pipeline.shards.plan import Group, sound_annotation
from data_pipeline.shards.schema import check_sample
from data_pipeline.shards.tally import Tally
from data_pipeline.shards.transcode import transcode
from data_pipeline.shards.writer import tar_entry
from model.errors import InputError

_BLOCK = 512
_RECORD = 10240  # a tar's length is a multiple of it


def write_group(folder: Path, group: Group, on_sample: Callable[[], None]) -> dict[str, Any]:
    """Write the tars of a group, each at once when it is whole.

    Args:
        folder: the tars are `NNNNNN-PP.tar` in it.
        on_sample: called after each line.

    Returns:
        A record of plain values: parts (name, sha256, bytes), what was counted (`Tally.to_dict`), the lines left out, and the
        group's media stamp.

    Raises:
        InputError: a line is bad and bad lines are not to be skipped, or the disk is full.
    """
    try:
        return _write(folder, group, on_sample)
    except OSError as error:
        remedy = "make room or put it right, and run the same command again"
        raise InputError(f"{error.filename or folder} cannot be written: {error.strerror}; {remedy}") from None


def _write(folder: Path, group: Group, on_sample: Callable[[], None]) -> dict[str, Any]:
    tally, skipped = Tally(), []
    with _Parts(folder, group) as parts, group.source.open("rb") as file:
        for number, offset in group.lines:
            file.seek(offset)
            line = file.readline()
            try:
                annotation = sound_annotation(line, group.source, number, group.options)
                content = _load(annotation, group, number)
                entry = _entry(annotation, content, f"{group.source} line {number} sample {annotation.key}")
            except InputError as error:
                if not group.options.skip_bad:
                    raise
                skipped.append({"line": number, "reason": str(error)})
            else:
                parts.write(entry)
                tally.add(annotation.sample, {name: len(value) for name, value in content.items()})
            on_sample()
        written = parts.finish()
    return {"parts": written, "tally": tally.to_dict(), "skipped": skipped, "media_stamp": group.media_stamp}


def _load(annotation: Annotation, group: Group, number: int) -> dict[str, bytes]:
    """Contents of the media files as they will be stored; describes them in the sample."""
    where = f"{group.source} line {number} sample {annotation.key}"
    content: dict[str, bytes] = {}
    for media in annotation.sample.media:
        path = annotation.files[media.file]
        try:
            value = path.read_bytes()
        except OSError as error:
            raise InputError(f"{where}: media file {path} cannot be read: {error.strerror}") from None
        name = f"{path} ({group.source} line {number})"
        # what an importer noted describes the file of that day, and not what transcoding makes of it
        media.width = media.height = media.rate = media.duration = media.num_frames = None
        if media.type == "video":
            value = _stored_video(value, group, name)
        fill_info(media, value, name)
        content[media.file] = value
    check_sample(annotation.sample, where)
    return content


def _entry(annotation: Annotation, content: Mapping[str, bytes], where: str) -> dict[str, Any]:
    try:
        return tar_entry(annotation.key, annotation.sample, content)
    except UnicodeEncodeError as error:
        raise InputError(f"{where} holds text that is no Unicode: {error}; correct the line") from None


def _stored_video(value: bytes, group: Group, name: str) -> bytes:
    return transcode(value, group.options.transcode, name) if group.options.transcode else value


class _Parts:
    """The tars of a group. Unfinished ones carry the process's number in their names and vanish with an error."""

    def __init__(self, folder: Path, group: Group) -> None:
        self._folder = folder
        self._group = group
        self._done: list[tuple[Path, dict[str, Any]]] = []
        self._file: _HashedFile | None = None
        self._tar: Any = None
        self._bytes = 0

    def __enter__(self) -> _Parts:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file.path.unlink(missing_ok=True)
        for path, _ in self._done:
            path.unlink(missing_ok=True)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append what `tar_entry` made."""
        members = sum(_BLOCK + -(-len(value) // _BLOCK) * _BLOCK for name, value in entry.items() if name != "__key__")
        most = self._group.options.max_shard_bytes
        if most is not None and self._bytes and -(-(self._bytes + members + 2 * _BLOCK) // _RECORD) * _RECORD > most:
            self._close()
        if self._file is None:
            self._file = _HashedFile(self._folder / f".{self._name()}.{os.getpid()}.tmp")
            self._tar = webdataset.TarWriter(self._file, encoder=False, mtime=0)
        self._tar.write(entry)
        self._bytes += members

    def finish(self) -> list[dict[str, Any]]:
        """Give the tars their names; returns name, sha256 and bytes of each."""
        self._close()
        for path, part in self._done:
            os.replace(path, self._folder / part["name"])
        parts = [part for _, part in self._done]
        self._done = []
        return parts

    def _close(self) -> None:
        if self._file is None:
            return
        self._tar.close()
        digest, size = self._file.seal()
        self._done.append((self._file.path, {"name": self._name(), "sha256": digest, "bytes": size}))
        self._file, self._tar, self._bytes = None, None, 0

    def _name(self) -> str:
        return f"{self._group.number:06d}-{len(self._done):02d}.tar"


class _HashedFile:
    """A file to write whose digest is known at its end, without reading it again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("wb")
        self._digest = hashlib.sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        if self._file.closed:  # tarfile still flushes when an abandoned archive is collected
            return len(data)
        self._digest.update(data)
        self._size += len(data)
        return self._file.write(data)

    def seal(self) -> tuple[str, int]:
        """Bring everything to the disk, so that a record never speaks of a tar that a power cut took; digest and bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest(), self._size

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
