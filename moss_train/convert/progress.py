"""How far a conversion is: a bar with GB/s on a terminal, one line at the end elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class ByteProgress:
    """Counts bytes of one task; a context manager. On success it leaves one line with size, seconds and speed."""

    def __init__(self, title: str, total: int, console: Console | None = None) -> None:
        self._title, self._total = title, total
        self._console = console or Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
            console=self._console, disable=not self._console.is_terminal, transient=True,
        )  # fmt: skip
        self._done = 0

    def __enter__(self) -> ByteProgress:
        self._begin = time.monotonic()
        self._bar.start()
        self._task = self._bar.add_task(self._title, total=self._total)
        return self

    def advance(self, count: int) -> None:
        """`count` more bytes are done."""
        self._done += count
        self._bar.update(self._task, advance=count)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if kind is None:
            seconds = max(time.monotonic() - self._begin, 1e-9)
            speed = f"{self._done / 1e9:.2f} GB in {seconds:.1f} s, {self._done / 1e9 / seconds:.2f} GB/s"
            self._console.print(f"{self._title}: {speed}", highlight=False, soft_wrap=True)
