"""The thread that speaks with W&B."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moss_train.config.logging import LoggingConfig
from moss_train.monitors.wandb_file import read_history, wandb_files

Row = dict[str, float]
MOST_WAITING = 100_000
"""Rows that wait for a server; later ones are dropped. metrics.jsonl has them."""


class WandbSender:
    """Starts W&B, sends what it lacks of earlier processes, then rows as they come.

    An online run that does not reach its server is recorded offline, to be sent by `wandb sync`.

    Args:
        folder: of W&B's files.
        settings: the `logging` group.
        options: of `wandb.init`.
        before: gives the rows of earlier processes of the run.
    """

    def __init__(
        self, folder: Path, settings: LoggingConfig, options: dict[str, Any], before: Callable[[], list[Row]]
    ) -> None:  # fmt: skip
        self._folder = folder
        self._settings = settings
        self._options = options
        self._before = before
        self._rows: queue.Queue[Row | None] = queue.Queue(MOST_WAITING)
        self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
        self._run: Any = None
        self._sent = -1
        """The last step that W&B has."""

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def send(self, row: Row) -> None:
        """Hand over a row; never waits."""
        try:
            self._rows.put_nowait(row)
        except queue.Full:
            return

    def finish(self) -> None:
        """Wait until all is sent, as long as the settings allow."""
        limit = self._settings.wandb_finish_seconds
        with contextlib.suppress(queue.Full):
            self._rows.put(None, timeout=limit)
        self._thread.join(limit)
        if self._thread.is_alive():
            self.warn(f"still sending after {limit:g} s; `wandb sync {self._folder}/wandb/*` sends the rest")

    @staticmethod
    def warn(text: str) -> None:
        """One line that does not end anything."""
        print(f"moss: W&B is switched off for this run: {text}", file=sys.stderr, flush=True)

    def _work(self) -> None:
        try:
            self._open()
            for row in self._before():
                self._log(row)
            while (row_or_end := self._rows.get()) is not None:
                self._log(row_or_end)
            self._run.finish()
        except Exception as error:  # whatever a logging service raises must not end training
            self.warn(f"{error}")

    def _open(self) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        mode = self._settings.wandb
        try:
            self._run = self._init(wandb, mode)
        except Exception as error:
            if mode != "online":
                raise
            first = str(error).strip().partition("\n")[0]
            print(
                f"moss: W&B cannot be reached ({first}); the run is recorded offline and can be sent later: "
                f"`wandb sync {self._folder}/wandb/*`",
                file=sys.stderr,
                flush=True,
            )
            mode = "offline"
            wandb.teardown()  # the attempt still holds the run's id
            self._run = self._init(wandb, mode)
        self._sent = self._run.starting_step - 1 if mode == "online" else _last_step(self._folder, self._options["id"])
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self._run.define_metric("eval/loss", summary="min", step_metric="step")

    def _init(self, wandb: Any, mode: str) -> Any:
        """The console stays ours: W&B would take the progress bar's."""
        settings = wandb.Settings(console="off", init_timeout=self._settings.wandb_start_seconds)
        return wandb.init(
            dir=str(self._folder), mode=mode, resume="allow", reinit="finish_previous", settings=settings, **self._options
        )

    def _log(self, row: Row) -> None:
        step = int(row["step"])
        if step > self._sent:
            self._run.log(row, step=step, commit=True)
            self._sent = step


def _last_step(folder: Path, identity: str) -> int:
    """The newest step in the files of a run's earlier processes; -1 where there is none."""
    steps = [-1]
    for path in wandb_files(folder):
        found, rows = read_history(path)
        if found == identity:
            steps += [row["_step"] for row in rows]
    return max(steps)
