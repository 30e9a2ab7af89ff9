"""This process's end of the line to W&B, which has a process of its own.

W&B starts processes and threads and waits for its server. In the training process that could be stopped by a fork of the
data's or checkpoints' processes at the wrong moment, and stop training with it. So a small process runs W&B
(`wandb_writer`) and gets rows through a pipe; a thread fills the pipe, for a pipe can be full.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
from typing import Any

MOST_WAITING = 100_000
"""Rows that wait for a server; later ones are dropped. metrics.jsonl has them."""
SPARE_SECONDS = 5.0
"""That the other process may take beyond its own limit."""
END = "null\n"
"""The last line."""


class WandbSender:
    """Starts the process, hands rows over, and at the end waits for it.

    Args:
        settings: for the process, plain JSON values; see `wandb_writer.Settings`.
        finish_seconds: how long the end waits.
    """

    def __init__(self, settings: dict[str, Any], finish_seconds: float) -> None:
        self._limit = finish_seconds + SPARE_SECONDS
        self._lines: queue.Queue[str | None] = queue.Queue(MOST_WAITING)
        # A session of its own: what ends the run with a signal leaves it the time to send the last rows.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "moss_train.monitors.wandb_writer"], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        self._put(settings)
        self._thread = threading.Thread(target=self._work, name="moss_wandb", daemon=True)
        self._thread.start()

    def send(self, row: dict[str, float]) -> None:
        """Hand over a row; never waits."""
        self._put(row)

    def finish(self) -> None:
        """Wait until all is sent, as long as the settings allow."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=self._limit)
        self._thread.join(self._limit)
        try:
            self.process.wait(self._limit)
        except subprocess.TimeoutExpired:
            self.process.kill()
            print("moss: W&B did not end in time; `wandb sync` sends what it lacks", file=sys.stderr, flush=True)
            self.process.wait()

    def _put(self, value: dict[str, Any]) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(json.dumps(value, default=str) + "\n")

    def _work(self) -> None:
        assert self.process.stdin is not None
        # The other process may have ended, with its own line that says why.
        with contextlib.suppress(OSError), self.process.stdin as pipe:
            while (line := self._lines.get()) is not None:
                pipe.write(line)
                pipe.flush()
            pipe.write(END)  # processes that were forked meanwhile hold the pipe open
