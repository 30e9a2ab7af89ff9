"""One piece of work in a thread of its own, whose error is kept for whoever asks."""

from __future__ import annotations

import threading
from collections.abc import Callable

from moss_train.checkpoint.common import reason


class Background:
    """Begins at once. The thread does not keep a process alive that ends for another reason.

    Args:
        work: what is done; None is done already.
        trouble: why it could not be begun, if so.
    """

    def __init__(self, work: Callable[[], object] | None = None, trouble: str | None = None) -> None:
        self.trouble = trouble
        """Why it failed, in a few words; None while it runs and after success."""
        self._thread: threading.Thread | None = None
        if work is not None:
            self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoint", daemon=True)
            self._thread.start()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self.trouble = reason(error)

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self._thread is None or not self._thread.is_alive()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most so long; whether it has ended."""
        if self._thread is not None:
            self._thread.join(seconds)
        return self.done
