"""`RUN/hang/rank_00001.txt`: the Python stacks of all threads of a rank that hangs.

A thread that holds Python's lock in C code keeps every other thread from running, the watching one included. A timer of
`faulthandler`, which needs no lock, is wound up again and again by the watching thread and writes when that stops.
"""

from __future__ import annotations

import contextlib
import faulthandler
from pathlib import Path
from typing import TextIO


class StackFile:
    """Made once the run folder is there; removed at the end where nothing was written.

    Args:
        folder: `RUN/hang`.
        rank: this rank.
        patience: seconds without winding after which the timer writes.
    """

    def __init__(self, folder: Path, rank: int, patience: float) -> None:
        self.folder = folder
        self.path = self.path_of(rank)
        self._patience = patience
        self._file: TextIO | None = None
        self._given_up = False

    def path_of(self, rank: int) -> Path:
        """The file of any rank."""
        return self.folder / f"rank_{rank:05d}.txt"

    def wind(self) -> None:
        """Put the timer off."""
        if self._file is None and self.folder.parent.is_dir():
            self._open()
        if self._file is not None:
            faulthandler.dump_traceback_later(self._patience, repeat=False, file=self._file, exit=False)

    def write(self, head: str) -> bool:
        """The stacks of all threads now; whether they could be written."""
        if self._file is None:
            self._open()
        if self._file is None:
            return False
        with contextlib.suppress(OSError):
            self._file.write(head + "\n")
            self._file.flush()
            faulthandler.dump_traceback(self._file, all_threads=True)
            return True
        return False

    def close(self) -> None:
        """Stop the timer; an empty file goes."""
        if self._file is None:
            return
        faulthandler.cancel_dump_traceback_later()
        with contextlib.suppress(OSError):
            empty = self.path.stat().st_size == 0
            self._file.close()
            if empty:
                self.path.unlink()
                self.folder.rmdir()  # refused while other ranks' files are there
        self._file = None

    def _open(self) -> None:
        if self._given_up:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8")
        except OSError:
            self._given_up = True  # a full disk does not end a run; the sentence comes without stacks
