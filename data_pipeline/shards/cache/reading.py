"""Reading a node's copies in place of the source, every byte compared with its checksum."""

from __future__ import annotations

import os
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, Any

from megatron.energon.epathlib import EPath
from megatron.energon.flavors.webdataset.itar import ITAR_SUFFIX
from megatron.energon.flavors.webdataset.sample_loader import WebdatasetSampleLoaderDataset

from data_pipeline.shards.cache.entry import BLOCK, Entry, Record, hold
from data_pipeline.storage.offsets import RemoteOffsets
from data_pipeline.storage.sized import SizedReader

SECONDS_FOR_A_LOOK = 2.0
"""How long whoever looks whether copies are in use may keep a loader waiting."""


class Copies:
    """The copies of one dataset, which stay as long as this object, or a forked process that has it, is open."""

    def __init__(self, entry: Entry, held: int) -> None:
        self._entry = entry
        self._held: int | None = held

    @classmethod
    def find(cls, cache: str | os.PathLike[str], source: EPath, digest: str) -> Copies | None:
        """The copies of a dataset; None where there are none of these very shards.

        Args:
            digest: identity of the source's shards.
        """
        entry = Entry.of(Path(cache), source.url)
        held = hold(entry.lock, exclusive=False, seconds=SECONDS_FOR_A_LOOK if entry.lock.exists() else 0.0)
        if held is None:
            return None
        described = entry.described()
        if described is None or described.digest != digest:
            os.close(held)
            return None
        entry.touch()
        return cls(entry, held)

    def open(self, name: str, source: EPath) -> IO[bytes]:
        """A file for reading, from the source where there is no usable copy.

        Raises:
            OSError, StorageError: the source cannot be opened either.
        """
        record = self._entry.record(name)
        if record is None:
            return source.open("rb")  # type: ignore[no-any-return]
        path = self._entry.path(name)
        try:
            file = path.open("rb", buffering=0)
        except OSError:
            return source.open("rb")  # type: ignore[no-any-return]
        return CopiedFile(file, record, lambda why: self._instead(name, source, why))  # type: ignore[return-value]

    def has(self, name: str) -> bool:
        """Whether there is a usable copy of a file."""
        return self._entry.record(name) is not None

    def close(self) -> None:
        """Let the copies go."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def _instead(self, name: str, source: EPath, why: str) -> IO[bytes]:
        with suppress(OSError):
            self._entry.forget(name)  # the next `moss data cache` makes it anew
        path = self._entry.path(name)
        print(f"moss: the copy {path} is damaged ({why}); {source} is read instead", file=sys.stderr, flush=True)
        return source.open("rb")  # type: ignore[no-any-return]


class CopiedFile(SizedReader):
    """A copy for reading. At the first byte that is not the source's it goes on with the source, at the same place.

    Args:
        file: the copy, unbuffered.
        record: what it holds.
        instead: opens the source, told why.
    """

    def __init__(self, file: IO[bytes], record: Record, instead: Callable[[str], IO[bytes]]) -> None:
        super().__init__(record.bytes)
        self._file = file
        self._record = record
        self._instead = instead
        self._left = False  # for the source
        self._block, self._content = -1, b""  # the last one that was read

    def _between(self, start: int, end: int) -> bytes:
        content = b"" if self._left else self._checked(start, end)
        if self._left:
            self._file.seek(start)
            content = self._file.read(end - start)
        return content

    def close(self) -> None:
        self._file.close()
        super().close()

    def _checked(self, start: int, end: int) -> bytes:
        """Bytes of the copy; the source is opened where they are not what they should be."""
        first, last = start // BLOCK, (end - 1) // BLOCK
        pieces = []
        try:
            for number in range(first, last + 1):
                if number != self._block:
                    self._content = self._read_block(number)
                    self._block = number
                begin = number * BLOCK
                pieces.append(self._content[max(start - begin, 0) : end - begin])
        except (OSError, ValueError) as error:
            self._leave(str(error))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_block(self, number: int) -> bytes:
        content = os.pread(self._file.fileno(), BLOCK, number * BLOCK)
        if len(content) != min(BLOCK, self.size - number * BLOCK):
            raise ValueError(f"it ends at byte {number * BLOCK + len(content):,} of {self.size:,}")
        if zlib.crc32(content) != self._record.checksum(number):
            raise ValueError(f"its checksum differs behind byte {number * BLOCK:,}")
        return content

    def _leave(self, why: str) -> None:
        copy, self._file = self._file, self._instead(why)
        self._left, self._content = True, b""
        copy.close()


def read_copies(dataset: Any, copies: Copies) -> None:
    """Make a dataset of shards read copies where there are any.

    Args:
        dataset: what `CrudeWebdataset.build` gave.
    """
    while not isinstance(dataset, WebdatasetSampleLoaderDataset):
        dataset = dataset.dataset
    for reader in dataset.join_readers:
        names = {str(shard.path): shard.name for shard in reader.shard_infos}
        reader.cached_offset_reader = _Offsets(copies, names, reader.cached_offset_reader)
        reader.tar_filepaths = [_Tar(copies, names[str(path)], path) for path in reader.tar_filepaths]


class _Tar:
    """Stands in for the path of a shard: Energon's reader opens it and nothing else."""

    def __init__(self, copies: Copies, name: str, source: EPath) -> None:
        self._copies, self._name, self._source = copies, name, source

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The shard for reading."""
        return self._copies.open(self._name, self._source)


class _Offsets(RemoteOffsets):
    """Where samples begin, from the copy of a shard's index; from the source's as before where there is none."""

    def __init__(self, copies: Copies, names: dict[str, str], behind: Any) -> None:
        super().__init__()
        self._copies, self._names, self._behind = copies, names, behind

    def get_itar_byte_offset(self, tar_file: EPath, sample_offset: int = 0) -> tuple[int, int]:
        if not self.knows(tar_file) and not self._copies.has(self._index(tar_file)):
            return self._behind.get_itar_byte_offset(tar_file, sample_offset)  # type: ignore[no-any-return]
        return super().get_itar_byte_offset(tar_file, sample_offset)

    def content(self, tar_file: EPath) -> bytes:
        with self._copies.open(self._index(tar_file), tar_file.with_suffix(ITAR_SUFFIX)) as file:
            return file.read()

    def _index(self, tar_file: EPath) -> str:
        return str(PurePosixPath(self._names[str(tar_file)]).with_suffix(ITAR_SUFFIX))
