"""One thread beside the main one that does one thing at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

T = TypeVar("T")


class OneThread(Generic[T]):
    """Begins work early; who needs the result waits for what is left of it.

    Args:
        device: what the thread allocates pinned memory for.
    """

    def __init__(self, device: torch.device) -> None:
        # A new thread's current GPU is the first one, whatever the main thread's.
        start = (lambda: torch.cuda.set_device(device)) if device.type == "cuda" else None
        self._pool = ThreadPoolExecutor(1, "moss-feed", initializer=start)
        self._begun: Future[T] | None = None

    def begin(self, work: Callable[[], T]) -> None:
        """Start work in the thread."""
        self._begun = self._pool.submit(work)

    def result(self, work: Callable[[], T]) -> T:
        """Of the work that was begun, or of this work, done here, if none was."""
        begun, self._begun = self._begun, None
        return work() if begun is None else begun.result()

    def close(self) -> None:
        """Wait for the end of what was begun, whatever it is."""
        self._pool.shutdown(wait=True, cancel_futures=True)
