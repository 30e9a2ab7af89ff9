"""A file object for reading something of known size, from whatever gives its bytes between two places."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from typing import Any


class SizedReader(io.RawIOBase):
    """Keeps the position; the bytes come from `_between`.

    Args:
        size: bytes in all.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self._position = 0

    @abstractmethod
    def _between(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end`, at least one, none of them beyond the size."""

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
        content = self._between(self._position, end)
        self._position += len(content)
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
