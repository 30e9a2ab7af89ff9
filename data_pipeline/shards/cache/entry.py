"""A dataset's copies on disk: one folder, a record beside every file that is whole, and a lock for whoever reads it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from model.errors import InputError

BLOCK = 256 * 1024
"""Bytes of a file that share a checksum."""
DISK_BLOCK = 4096
"""What a file takes is rounded up to it."""
VERSION = 1
_KEY = re.compile(r"[0-9a-f]{32}")
_GONE = ".gone-"


@dataclass(frozen=True)
class Record:
    """That a file was copied whole, and what it holds."""

    bytes: int
    stamp: str
    """Of the source: changes when the file does."""
    mtime_ns: int
    """Of the copy."""
    checksums: str
    """CRC-32 of each block, eight hexadecimal digits in a row."""

    def checksum(self, block: int) -> int:
        """Of one block."""
        return int(self.checksums[8 * block : 8 * block + 8], 16)


@dataclass(frozen=True)
class Described:
    """What an entry is a copy of."""

    source: str
    digest: str
    """Of the source's shards; copies of other ones are not used."""
    version: int = VERSION


class Entry:
    """The folder of one dataset.

    A file is there when its record is: the record is written last, under its final name at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = folder / ".lock"
        self.partial = folder / ".partial"
        """Files that are being copied; whatever an interrupted copy left there is worth nothing."""
        self._records = folder / ".copied"
        self._described = folder / "entry.json"

    @classmethod
    def of(cls, cache: Path, source: str) -> Entry:
        """The entry of a dataset by its address or absolute path."""
        return cls(cache / hashlib.sha256(source.encode()).hexdigest()[:32])

    def create(self, described: Described) -> None:
        """Make the folder, if it is not there."""
        for folder in (self.folder, self.partial, self._records):
            folder.mkdir(parents=True, exist_ok=True)
        self.lock.touch()
        self._write(self._described, asdict(described))

    def described(self) -> Described | None:
        """None where there is nothing usable."""
        try:
            found = Described(**json.loads(self._described.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.version == VERSION else None

    def path(self, name: str) -> Path:
        """Of a file of the dataset.

        Raises:
            InputError: the name leads out of the folder.
        """
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise InputError(
                f"{name!r} is no name of a file in a dataset folder; write the folder again with `moss data prepare`"
            )
        return self.folder / pure

    def record(self, name: str) -> Record | None:
        """Of a file that is whole; None where there is none, or the file was touched since."""
        try:
            record = Record(**json.loads(self._record_path(name).read_text(encoding="utf-8")))
            found = self.path(name).stat()
        except (OSError, ValueError, TypeError):
            return None
        return record if (found.st_size, found.st_mtime_ns) == (record.bytes, record.mtime_ns) else None

    def place(self, temporary: Path, name: str, stamp: str, checksums: str) -> None:
        """Make a finished copy a file of the entry."""
        target = self.path(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        self.forget(name)
        os.replace(temporary, target)
        found = target.stat()
        record = self._record_path(name)
        record.parent.mkdir(parents=True, exist_ok=True)
        self._write(record, asdict(Record(found.st_size, stamp, found.st_mtime_ns, checksums)))

    def forget(self, name: str) -> None:
        """The file counts as absent from now on."""
        self._record_path(name).unlink(missing_ok=True)

    def remove_file(self, name: str) -> None:
        """Remove a file of the entry."""
        self.forget(name)
        self.path(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Files that have a record, in order."""
        found = self._records.rglob("*.json")
        return sorted(path.relative_to(self._records).as_posix()[: -len(".json")] for path in found)

    def size(self) -> int:
        """Bytes on the disk."""
        return sum(map(on_disk, _file_sizes(self.folder)))

    def size_of(self, name: str) -> int:
        """Bytes on the disk of a file and its record."""
        return sum(on_disk(path.stat().st_size) for path in (self.path(name), self._record_path(name)) if path.is_file())

    def last_used(self) -> float:
        """Seconds since 1970; 0 where that is not known."""
        try:
            return self.lock.stat().st_mtime
        except OSError:
            return 0.0

    def touch(self) -> None:
        """It is used now."""
        with suppress(OSError):  # another user's
            os.utime(self.lock)

    def in_use(self) -> bool:
        """Whether a loader reads from it."""
        held = hold(self.lock, exclusive=True)
        if held is not None:
            os.close(held)
        return held is None and self.lock.exists()

    def remove(self) -> bool:
        """Remove all of it; False where it is in use."""
        held = hold(self.lock, exclusive=True)
        if held is None and self.lock.exists():
            return False
        try:
            gone = self.folder.with_name(f"{_GONE}{self.folder.name}")
            shutil.rmtree(gone, ignore_errors=True)
            os.replace(self.folder, gone)  # from here on nobody finds it
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            if held is not None:
                os.close(held)
        return True

    def _record_path(self, name: str) -> Path:
        path = self._records / self.path(name).relative_to(self.folder)
        return path.with_name(f"{path.name}.json")

    def _write(self, path: Path, content: dict[str, Any]) -> None:
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, path)


def entries(cache: Path) -> list[Entry]:
    """All of a cache folder; other things in it are left alone."""
    if not cache.is_dir():
        return []
    return [Entry(path) for path in sorted(cache.iterdir()) if _KEY.fullmatch(path.name) and (path / "entry.json").is_file()]


def remove_leftovers(cache: Path) -> None:
    """What interrupted removals and copies left; only for who works alone in the folder."""
    for path in [*cache.glob(f"{_GONE}*"), *(entry.partial for entry in entries(cache))]:
        shutil.rmtree(path, ignore_errors=True)


def on_disk(size: int) -> int:
    """Bytes that a file takes."""
    return -(-size // DISK_BLOCK) * DISK_BLOCK


def hold(path: Path, exclusive: bool, seconds: float = 0.0) -> int | None:
    """A lock until the descriptor that is returned, and every copy of it in forked processes, is closed.

    Args:
        exclusive: nobody else may hold it; otherwise nobody else exclusively.
        seconds: how long to wait for it.

    Returns:
        None where the file is gone or others hold it.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR if exclusive else os.O_RDONLY)
        except OSError:
            return None
        try:  # flock, not lockf: reader processes are forked and hold it too
            fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except OSError:
            pass
        os.close(descriptor)
        if time.monotonic() >= end:
            return None
        time.sleep(0.05)


def _file_sizes(folder: Path) -> Iterator[int]:
    for where, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it went meanwhile
                yield os.stat(os.path.join(where, name)).st_size
