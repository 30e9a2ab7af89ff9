"""Parts of remote files: what every kind of store gives, and a file object on top of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from data_pipeline.storage.sized import SizedReader

LEAST_READ = 64 * 1024
MOST_READ_AHEAD = 1024 * 1024


@dataclass(frozen=True)
class Part:
    """Some bytes of a file."""

    content: bytes
    total: int
    """Bytes of the whole file."""
    version: str | None
    """Changes when the file is replaced; None where the store does not tell."""
    modified: datetime | None = None


class Store(Protocol):
    """A bucket, host or profile. One call is one attempt."""

    def part(self, key: str, offset: int, size: int) -> Part:
        """Bytes `offset` to `offset + size` of a file, fewer only where it ends.

        Raises:
            PassingFault: another attempt may succeed.
            StorageError: it will not.
        """
        ...


class PartReader(Protocol):
    """`Store.part` with retries."""

    def __call__(self, key: str, offset: int, size: int) -> Part: ...


class RemoteFile(SizedReader):
    """A remote file for reading. Small reads in a row share a request: the first asks for 64 KiB, later ones for up to 1 MiB."""

    def __init__(self, read_part: PartReader, key: str) -> None:
        first = read_part(key, 0, LEAST_READ)
        super().__init__(first.total)
        self.name = key
        self._read_part = read_part
        self._ahead = LEAST_READ
        self._buffer, self._buffer_start = first.content, 0

    def _between(self, start: int, end: int) -> bytes:
        head = b""
        if not self._buffer_start <= start < self._buffer_end:
            self._fill(start, end, in_a_row=start == self._buffer_end)
        elif end > self._buffer_end:
            head = self._buffer[start - self._buffer_start :]
            self._fill(self._buffer_end, end, in_a_row=True)
        return head + self._buffer[start + len(head) - self._buffer_start : end - self._buffer_start]

    @property
    def _buffer_end(self) -> int:
        return self._buffer_start + len(self._buffer)

    def _fill(self, start: int, end: int, in_a_row: bool) -> None:
        self._ahead = min(MOST_READ_AHEAD, 2 * self._ahead) if in_a_row else LEAST_READ
        size = min(max(end - start, self._ahead), self.size - start)
        self._buffer, self._buffer_start = self._read_part(self.name, start, size).content, start
