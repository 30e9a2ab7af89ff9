"""Parts of remote files: what every kind of store gives, and a file object on top of it."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

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


class RemoteFile(io.RawIOBase):
    """A remote file for reading. Small reads in a row share a request: the first asks for 64 KiB, later ones for up to 1 MiB."""

    def __init__(self, read_part: PartReader, key: str) -> None:
        super().__init__()
        self.name = key
        self._read_part = read_part
        self._position = 0
        self._ahead = LEAST_READ
        first = read_part(key, 0, LEAST_READ)
        self.size = first.total
        self._buffer, self._buffer_start = first.content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        end = self.size if size is None or size < 0 else min(self.size, self._position + size)
        if end <= self._position:
            return b""
        if not self._buffer_start <= self._position < self._buffer_end:
            self._fill(self._position, end, in_a_row=self._position == self._buffer_end)
            head = b""
        elif end > self._buffer_end:
            head = self._buffer[self._position - self._buffer_start :]
            self._fill(self._buffer_end, end, in_a_row=True)
        else:
            head = b""
        start = self._position + len(head)
        content = head + self._buffer[start - self._buffer_start : end - self._buffer_start]
        self._position = end
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    @property
    def _buffer_end(self) -> int:
        return self._buffer_start + len(self._buffer)

    def _fill(self, start: int, end: int, in_a_row: bool) -> None:
        self._ahead = min(MOST_READ_AHEAD, 2 * self._ahead) if in_a_row else LEAST_READ
        size = min(max(end - start, self._ahead), self.size - start)
        self._buffer, self._buffer_start = self._read_part(self.name, start, size).content, start
