"""Remote files as Energon and our own readers open them."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any

from megatron.energon.epathlib import EPath

from data_pipeline.storage.address import Address, is_remote
from data_pipeline.storage.errors import AbsentError, StorageError
from data_pipeline.storage.http import HttpStore
from data_pipeline.storage.patience import Patience
from data_pipeline.storage.profile import ProfileStore
from data_pipeline.storage.ranges import Part, RemoteFile, Store
from data_pipeline.storage.s3 import S3Store


@dataclass(frozen=True)
class FileInfo:
    """What Energon asks about a file."""

    content_length: int
    last_modified: datetime
    """Now where the store does not tell, so that no older copy passes for it."""


class RemoteFiles:
    """The files of one host, bucket or profile, in the shape of Energon's file systems.

    Connections belong to a process: a forked or unpickled copy makes its own.
    """

    def __init__(self, address: Address, patience: Patience) -> None:
        self.address = address
        self.patience = patience
        self.sizes: dict[str, int] = {}
        """Bytes that files are known to have, by key."""
        self._known: dict[str, tuple[int, str | None]] = {}
        self._infos: dict[str, FileInfo] = {}
        self._store: tuple[int, Store] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    def part(self, key: str, offset: int, size: int) -> Part:
        """Bytes of a file, tried until they come.

        Raises:
            StorageError: they do not come, or are those of another file than was read or written before.
        """
        where = f"{self.address.root}/{key}"
        part = self.patience.persist(lambda: self._connected().part(key, offset, size), where)
        expected = self.sizes.get(key)
        if expected is not None and part.total != expected:
            raise StorageError(f"{where} has {part.total:,} bytes instead of {expected:,}; copy it there again")
        total, version = self._known.setdefault(key, (part.total, part.version))
        if part.total != total or (part.version != version and part.version and version):
            raise StorageError(f"{where} was replaced while it was read; start again, and leave the folder alone meanwhile")
        return part

    def open(self, path: str, mode: str = "rb", prefetch_file: bool = False) -> IO[Any]:
        """A file for reading."""
        if mode not in ("r", "rb"):
            raise StorageError(f"{self.address.root}{path} cannot be written; write the folder locally and copy it there")
        file = RemoteFile(self.part, path.lstrip("/"))
        if mode == "r":
            return io.StringIO(file.read().decode("utf-8"))
        return file  # type: ignore[return-value]

    def info(self, path: str) -> FileInfo:
        """Size and age of a file.

        Raises:
            AbsentError: it does not exist.
        """
        key = path.lstrip("/")
        if key not in self._infos:
            part = self.part(key, 0, 1)
            self._infos[key] = FileInfo(part.total, part.modified or datetime.now(UTC))
        return self._infos[key]

    def is_file(self, path: str) -> bool:
        """Whether a file exists."""
        try:
            self.info(path)
        except AbsentError:
            return False
        return True

    def get_posix_path(self, path: str) -> None:
        """There is none."""

    def download_file(self, path: str, target: str) -> None:
        """Copy a file to this machine."""
        with self.open(path) as source, open(target, "wb") as copy:
            shutil.copyfileobj(source, copy, 1024 * 1024)

    def _connected(self) -> Store:
        if self._store is None or self._store[0] != os.getpid():
            self._store = (os.getpid(), self._connect())
        return self._store[1]

    def _connect(self) -> Store:
        if self.address.scheme == "s3":
            return S3Store(self.address.host, self.patience.timeout_seconds)
        if self.address.scheme == "msc":
            return ProfileStore(self.address.host)
        return HttpStore(self.address.root, self.patience.timeout_seconds)


class RemotePath(EPath):
    """Energon's path with our file system behind it: the multi-storage-client's file objects hold whole shards in memory."""

    fs: RemoteFiles
    profile: str
    internal_path: PurePosixPath

    def __init__(self, address: Address | RemotePath, patience: Patience | None = None) -> None:
        if isinstance(address, RemotePath):
            self.fs, self.profile, self.internal_path = address.fs, address.profile, address.internal_path
            return
        self.fs = RemoteFiles(address, patience or Patience())
        self.profile = address.root
        self.internal_path = self._resolve(f"/{address.path}")

    def __getstate__(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("fs", "profile", "internal_path")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def __truediv__(self, other: str | EPath) -> EPath:
        return other if isinstance(other, EPath) else self._at(self._resolve(self.internal_path / other))

    @property
    def parent(self) -> RemotePath:
        return self._at(self.internal_path.parent)

    @property
    def url(self) -> str:
        return f"{self.profile}{self.internal_path}"

    def with_suffix(self, suffix: str) -> RemotePath:
        return self._at(self.internal_path.with_suffix(suffix))

    def _at(self, internal_path: PurePosixPath) -> RemotePath:
        path = RemotePath(self)
        path.internal_path = internal_path
        return path

    def expect_sizes(self, sizes: Mapping[str, int]) -> None:
        """Refuse files of this folder that have other sizes than these."""
        self.fs.sizes |= {str((self / name).internal_path).lstrip("/"): size for name, size in sizes.items()}


def open_path(path: str | os.PathLike[str], patience: Patience | None = None) -> EPath:
    """A folder or file, local or remote, as Energon opens it.

    Raises:
        InputError: the address is not one.
    """
    if is_remote(path):
        return RemotePath(Address.parse(os.fspath(path)), patience)
    return EPath(Path(path))


def open_file(path: str | os.PathLike[str], patience: Patience | None = None) -> IO[bytes]:
    """A local or remote file for reading; it can seek.

    Raises:
        StorageError: a remote file cannot be read.
        OSError: a local one.
    """
    if is_remote(path):
        return open_path(path, patience).open("rb")  # type: ignore[no-any-return]
    return open(path, "rb")


def read_bytes(path: str | os.PathLike[str], patience: Patience | None = None) -> bytes:
    """All of a local or remote file; errors as of `open_file`."""
    with open_file(path, patience) as file:
        return file.read()


def exists(path: str | os.PathLike[str], patience: Patience | None = None) -> bool:
    """Whether there is such a file, local or remote.

    Raises:
        StorageError: the store does not say.
    """
    if is_remote(path):
        return bool(open_path(path, patience).is_file())
    return Path(path).is_file()
