"""The folder that is copied: which files it holds, whether they changed, and their bytes."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from megatron.energon.epathlib import EPath

from data_pipeline.shards.cache.entry import BLOCK
from data_pipeline.shards.writer import REPORT, SUMMARY
from data_pipeline.storage.errors import AbsentError, StorageError
from data_pipeline.storage.files import RemotePath

METADATA = (
    *(f".nv-meta/{name}" for name in (".info.json", ".info.yaml", "split.yaml", "split.json", "dataset.yaml", "index.uuid")),
    ".nv-meta/index.sqlite",
    SUMMARY,
    REPORT,
)
"""What `moss data prepare` and Energon write beside the shards."""
PART = 16 * BLOCK
"""Bytes of one read, a multiple of a block."""


@dataclass(frozen=True)
class SourceFile:
    """A file as the source has it now."""

    name: str
    bytes: int
    stamp: str
    """Changes when the file does."""
    sha256: str | None = None
    """Where it was noted when the file was written."""


@dataclass(frozen=True)
class Shard:
    """A tar and where its samples begin."""

    tar: SourceFile
    index: SourceFile


class SourceFolder:
    """A dataset folder, local or remote. Threads may share it: each has its own connection.

    Args:
        path: Energon's.
        digest: identity of its shards.
    """

    def __init__(self, path: EPath, digest: str) -> None:
        self.path = path
        self.digest = digest
        self._own = threading.local()

    @property
    def address(self) -> str:
        """The same for the same place, whatever it is called in a configuration."""
        return str(self.path.url)

    def metadata(self) -> list[SourceFile]:
        """The files beside the shards.

        Raises:
            StorageError: the store does not answer.
        """
        return [found for name in METADATA if (found := self._look(name)) is not None]

    def shards(self, samples: Mapping[str, int], chosen: Iterable[str]) -> list[Shard]:
        """The shards of the given names.

        Args:
            samples: of every shard.

        Raises:
            AbsentError: one is missing.
            StorageError: the store does not answer.
        """
        digests, sizes = self._summary()
        found = []
        for name in chosen:
            sha256, size = digests.get(name), sizes.get(name)
            if sha256 is not None and size is not None:  # no need to look at it: there may be thousands
                tar = SourceFile(name, size, f"sha256 {sha256}", sha256)
            elif (looked := self._look(name)) is not None:
                tar = looked
            else:
                raise AbsentError(f"shard {self.path / name} is missing; write the folder again with `moss data prepare`")
            index = SourceFile(str(PurePosixPath(name).with_suffix(".tar.idx")), 8 * (samples[name] + 1), tar.stamp)
            found.append(Shard(tar, index))
        return found

    def read(self, name: str) -> Iterator[bytes]:
        """The bytes of a file in parts of whole blocks.

        Raises:
            StorageError: the store does not give them.
            OSError: a local file cannot be read.
        """
        if not isinstance(self.path, RemotePath):
            with (self._local / name).open("rb") as file:
                while part := file.read(PART):
                    yield part
            return
        path = self._connected() / name
        key = str(path.internal_path).lstrip("/")
        offset, total = 0, 1
        while offset < total:
            found = path.fs.part(key, offset, PART)
            yield found.content
            offset, total = offset + len(found.content), found.total

    @property
    def _local(self) -> Path:
        return Path(self.path.local_path())

    def _connected(self) -> RemotePath:
        if not hasattr(self._own, "path"):
            self._own.path = pickle.loads(pickle.dumps(self.path))  # a copy connects by itself
        return self._own.path  # type: ignore[no-any-return]

    def _look(self, name: str) -> SourceFile | None:
        """Size and version of a file; None where there is none."""
        if isinstance(self.path, RemotePath):
            path = self._connected() / name
            try:
                found = path.fs.part(str(path.internal_path).lstrip("/"), 0, 1)
            except AbsentError:
                return None
            version = found.version or (found.modified.isoformat() if found.modified else f"folder {self.digest}")
            return SourceFile(name, found.total, f"version {version}")
        try:
            status = (self._local / name).stat()
        except FileNotFoundError:
            return None
        return SourceFile(name, status.st_size, f"time {status.st_mtime_ns}")

    def _summary(self) -> tuple[Mapping[str, str], Mapping[str, int]]:
        """SHA-256 and bytes of each shard, where they were noted."""
        if self._look(SUMMARY) is None:
            return {}, {}
        try:
            content = json.loads(b"".join(self.read(SUMMARY)))
            return content.get("shards", {}), content.get("shard_bytes", {})
        except (AttributeError, ValueError) as error:
            raise StorageError(f"{self.path / SUMMARY} is damaged ({error}); write the folder again") from None
