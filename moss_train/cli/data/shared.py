"""What several actions print."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def one_line(summary: dict[str, Any]) -> str:
    """A dataset folder in a line, from its summary."""
    return (
        f"{summary['samples']} samples in {len(summary['shards'])} shards, {summary['video_seconds']:.0f} s of video, "
        f"{summary['media_bytes'] / 1e6:.1f} MB of media"
    )


@contextmanager
def progress(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal; yields a function of (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(text, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance
