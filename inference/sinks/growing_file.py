"""A text file that can be read while it grows and has its own name only once it is whole."""

from __future__ import annotations

import os
from pathlib import Path

from inference.evaluation.storage import check_folder
from model.errors import InputError


class GrowingFile:
    """Lines of `FILE.part`, flushed one by one; at the end it becomes `FILE`.

    Args:
        path: the file's own name; an older file of that name stays until this one is whole.
        option: the argument that named it, for messages.

    Raises:
        InputError: a folder has that name, or nothing can be written there; while writing, the disk is full.
    """

    def __init__(self, path: str | Path, option: str) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            raise InputError(f"{option} {path} is a folder; name a file")
        check_folder(self.path.parent)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.partial = self.path.with_name(self.path.name + ".part")
        self._file = self.partial.open("w", encoding="utf-8")
        self._broken = False

    def write(self, text: str) -> None:
        """Append and flush, so that a reader (or what is left after a crash) has it."""
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            self._broken = True
            reason = error.strerror or error
            raise InputError(f"{self.partial} cannot be written: {reason}; make room and stream again") from None

    def close(self, *, whole: bool) -> None:
        """End the file; `whole` gives it its own name."""
        if self._file.closed:
            return
        try:
            self._file.close()
        except OSError:
            if not self._broken:  # else it was said already; closing tries once more to write the rest
                raise
        if whole and not self._broken:
            os.replace(self.partial, self.path)
