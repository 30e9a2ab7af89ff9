"""Progress on the terminal: a bar with loss and time left, or a line now and then where there is no terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from moss_train.monitors.base import Monitor

SECONDS_BETWEEN_LINES = 10.0


class ProgressBar(Monitor):
    """A rich bar on a terminal, plain lines in a log file."""

    def __init__(self, title: str, console: Console | None = None) -> None:
        self._title = title
        self._console = console or Console()
        self._bar: Progress | None = None
        self._last_line = 0.0
        self._begin = 0.0

    def started(self, step: int, steps: int) -> None:
        self._first, self._steps, self._begin = step, steps, time.monotonic()
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(self._title, total=steps, completed=step, figures="")
        self._bar.start()

    def stepped(self, record: dict[str, Any]) -> None:
        figures = f"loss {record['loss']:.4f}  lr {record['learning_rate']:.2e}"
        if self._bar is not None:
            self._bar.update(self._task, completed=record["step"], figures=figures)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES or record["step"] == self._steps:
            self._last_line = now
            done = record["step"] - self._first
            left = (now - self._begin) / max(done, 1) * (self._steps - record["step"])
            self._console.print(
                f"{self._title}  {record['step']}/{self._steps}  {figures}  {record['seconds']:.2f} s/step  left {left:.0f} s",
                highlight=False,
            )

    def evaluated(self, record: dict[str, Any]) -> None:
        if "eval_loss" in record:
            self._console.print(f"{self._title}  step {record['step']}: held-out loss {record['eval_loss']:.4f}", highlight=False)

    def finished(self) -> None:
        if self._bar is not None:
            self._bar.stop()
