"""From a client's queue to a session, waiting without polling."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

_STOP = object()
"""Wakes a forwarder; it takes this out of the queue again."""


class Forwarder:
    """A thread that hands on what is put into a queue, until it is stopped.

    Items that lie in front of the wake-up in the queue when it is stopped are taken out and not handed on.

    Args:
        items: the client's queue.
        handle: called with each item.
        on_error: called with what `handle` raised; the thread goes on, so that the queue never fills up.
    """

    def __init__(
        self, items: queue.Queue[Any], handle: Callable[[Any], object], on_error: Callable[[BaseException], None]
    ) -> None:
        self._items, self._handle, self._on_error = items, handle, on_error
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue to session", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns once it has ended."""
        self._stopped.set()
        self._items.put(_STOP)  # a bounded queue is emptied by the thread, so this never waits long
        self._thread.join()

    def _run(self) -> None:
        while (item := self._items.get()) is not _STOP:
            if not self._stopped.is_set():
                try:
                    self._handle(item)
                except BaseException as error:
                    self._on_error(error)
