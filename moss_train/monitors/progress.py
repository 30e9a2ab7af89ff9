"""Progress on the terminal: a bar with loss, speed and time left, or a line now and then where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from moss_train.monitors.base import Monitor, SaveEvent

SECONDS_BETWEEN_LINES = 10.0


class ProgressBar(Monitor):
    """A rich bar on a terminal, plain lines in a log file."""

    def __init__(self, title: str, console: Console | None = None, opening: str = "") -> None:
        self._title = title
        self._opening = opening
        self._console = console or Console()
        self._bar: Progress | None = None
        self._last_line = 0.0

    def started(self, step: int, steps: int) -> None:
        self._steps = steps
        if self._opening:
            self._say(f"{self._opening}; {f'continues behind step {step}' if step else 'begins'}, {steps} steps in all")
        if not self._console.is_terminal:
            return
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
        )
        self._task = self._bar.add_task(self._title, total=steps, completed=step, figures="")
        self._bar.start()

    def stepped(self, record: dict[str, Any]) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=record["step"], figures=figures(record))
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES or record["step"] == self._steps:
            self._last_line = now
            self._say(f"{record['step']}/{self._steps}  {figures(record)}")

    def evaluated(self, record: dict[str, Any]) -> None:
        if "eval_loss" in record:
            self._say(f"step {record['step']}: held-out loss {record['eval_loss']:.4f}")

    def saved(self, event: SaveEvent) -> None:
        if event.kind == "published":
            self._say(f"checkpoint {event.path.name if event.path else event.step}")

    def finished(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _say(self, text: str) -> None:
        self._console.print(f"{self._title}  {text}", highlight=False, soft_wrap=True)


def figures(record: Mapping[str, Any]) -> str:
    """What a glance at a run wants to know, of what the record has."""
    parts = [f"loss {record['loss']:.4f}"]
    if record.get("skipped"):
        parts.append("skipped")
    if "tokens_per_second" in record:
        parts.append(f"{short(record['tokens_per_second'])} tok/s")
    if record.get("frames"):
        parts.append(f"{short(record['frames_per_second'])} frames/s")
    if "mfu" in record:
        parts.append(f"MFU {100 * record['mfu']:.0f}%")
    if "data_share" in record:
        parts.append(f"data wait {100 * record['data_share']:.0f}%")
    parts.append(f"{record['seconds']:.2f} s/step")
    if "eta_seconds" in record:
        parts.append(f"left {duration(record['eta_seconds'])}")
    return "  ".join(parts)


def short(value: float) -> str:
    """Three digits and a suffix: 12345 -> 12.3k."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """45 s, 12:05 (minutes), 3:12:05 (hours), 2 d 3:12:05."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if whole < 60:
        return f"{whole} s"
    clock = f"{hours}:{minutes:02}:{rest:02}" if hours or days else f"{minutes}:{rest:02}"
    return f"{days} d {clock}" if days else clock
