"""A command that is told to end, and has started processes that must end with it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def raised_at_sigterm(error: BaseException) -> Iterator[None]:
    """Raise it at SIGTERM, so that what cleans up behind Ctrl-C does so then too; in the main thread only."""

    def end(number: int, frame: FrameType | None) -> None:
        raise error

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
