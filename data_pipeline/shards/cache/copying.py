"""Copying files of a source into an entry: whole or not at all, several at a time."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from data_pipeline.shards.cache.entry import BLOCK, Entry
from data_pipeline.shards.cache.source import SourceFile, SourceFolder
from model.errors import InputError

_FULL = (errno.ENOSPC, errno.EDQUOT)


class SourceDiffers(Exception):
    """A file of the source is not what its folder says; the text says how."""


class DiskFull(Exception):
    """There is no room for a file."""


class _Stopped(Exception):
    """Another copy failed, or the user interrupted."""


@dataclass(frozen=True)
class Job:
    """Files that are copied one after the other; the last makes them usable."""

    source: SourceFolder
    entry: Entry
    files: Sequence[SourceFile]
    where: str = ""
    """Name of the dataset, for messages."""


@dataclass
class Copied:
    """What came of all jobs."""

    bytes: int = 0
    files: int = 0
    full: bool = False
    """The disk had no more room; what did not fit was removed."""
    differing: list[str] = field(default_factory=list)
    """One sentence for each file whose source is not what its folder says."""


class Copier:
    """Copies by several threads.

    Args:
        threads: files at a time.
        advance: told the bytes that were copied.
        has_room: whether the disk takes so many more bytes.
    """

    def __init__(self, threads: int, advance: Callable[[int], None], has_room: Callable[[int], bool]) -> None:
        self._threads = threads
        self._advance = advance
        self._has_room = has_room
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def run(self, jobs: Sequence[Job]) -> Copied:
        """Copy what is not there yet.

        Raises:
            StorageError, OSError: the source cannot be read.
            InputError: the cache folder cannot be written.
        """
        done = Copied()
        with ThreadPoolExecutor(self._threads, thread_name_prefix="copy") as pool:
            try:
                for finished in as_completed([pool.submit(self._job, job, done) for job in jobs]):
                    finished.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(cancel_futures=True)
                raise
        return done

    def _job(self, job: Job, done: Copied) -> None:
        for file in job.files:
            if done.full or self._stop.is_set():
                return
            try:
                size = self._file(job, file)
            except _Stopped:
                return
            except DiskFull:
                done.full = True
                return
            except SourceDiffers as error:
                with self._lock:
                    done.differing.append(f"{job.where}: {error}")
                return
            with self._lock:
                done.files += 1
                done.bytes += size

    def _file(self, job: Job, file: SourceFile) -> int:
        temporary = job.entry.partial / f"{file.name.replace('/', '%')}.{threading.get_ident()}"
        try:
            if not self._has_room(file.bytes):
                raise DiskFull
            checksums = self._write(job.source, file, temporary)
            try:
                job.entry.place(temporary, file.name, file.stamp, checksums)
            except OSError as error:
                raise _refused(error, job.entry.folder) from error
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return file.bytes

    def _write(self, source: SourceFolder, file: SourceFile, path: Path) -> str:
        """Returns the checksums of the blocks."""
        sums: list[str] = []
        digest, size = hashlib.sha256(), 0
        try:
            out = path.open("wb", buffering=0)
        except OSError as error:
            raise _refused(error, path.parent) from error
        with out:
            for part in source.read(file.name):
                if self._stop.is_set():
                    raise _Stopped
                view = memoryview(part)
                sums += [f"{zlib.crc32(view[i : i + BLOCK]):08x}" for i in range(0, len(part), BLOCK)]
                if file.sha256 is not None:
                    digest.update(view)
                size += len(part)
                self._put(out.fileno(), view, path)
                self._advance(len(part))
            try:
                os.fsync(out.fileno())  # a disk may say only now that it is full or broken
            except OSError as error:
                raise _refused(error, path.parent) from error
        if size != file.bytes:
            raise SourceDiffers(f"{source.path / file.name} has {size:,} bytes instead of {file.bytes:,}")
        if file.sha256 is not None and digest.hexdigest() != file.sha256:
            raise SourceDiffers(f"{source.path / file.name} is not what was written there (its SHA-256 differs)")
        return "".join(sums)

    def _put(self, descriptor: int, view: memoryview, path: Path) -> None:
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except OSError as error:
                raise _refused(error, path.parent) from error


def unwritable(folder: Path, error: OSError) -> InputError:
    """What to say of a cache folder that takes no files."""
    return InputError(
        f"launcher.cache.folder: {folder} cannot be written: {error.strerror or error}; "
        "choose a folder on the node's own disk that you may write"
    )


def _refused(error: OSError, folder: Path) -> Exception:
    return DiskFull() if error.errno in _FULL else unwritable(folder, error)
