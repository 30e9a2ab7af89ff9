"""What loader workers do differently from the process that started them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import Any


def outlive_termination(loader: Any) -> None:
    """Make the worker processes of a torch loader ignore SIGTERM.

    A scheduler or launcher sends it to the whole process group to ask for a last checkpoint: the training process answers
    it and still needs its workers for the current step. It kills them itself at the end.
    """
    loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)


def _start_worker(then: Callable[[int], None] | None, worker_id: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if then is not None:
        then(worker_id)
