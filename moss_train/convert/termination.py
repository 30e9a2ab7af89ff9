"""A conversion that is told to end removes what it has half written, as one that fails does."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the removal
    raise KeyboardInterrupt


@contextmanager
def termination_cleans_up() -> Iterator[None]:
    """Within it SIGTERM and SIGHUP raise KeyboardInterrupt instead of ending the process at once; also a decorator.

    Signals that are ignored or handled already, and other threads than the main one, are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    for number in taken:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)
