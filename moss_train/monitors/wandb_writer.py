"""The process that runs W&B for a training run.

It reads JSON lines from its standard input: settings, then rows, then `null`. Where the run is killed the input ends without.
It imports neither torch nor megatron.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moss_train.monitors.names import flatten
from moss_train.monitors.wandb_file import read_history, wandb_files

Row = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """What the first line says."""

    folder: str
    """Of W&B's files."""
    mode: str
    """offline | online"""
    metrics: str
    """The run's metrics.jsonl."""
    step: int
    """Steps that earlier processes of the run did."""
    start_seconds: float
    finish_seconds: float
    options: dict[str, Any]
    """Of `wandb.init`."""


def warn(text: str) -> None:
    """One line that does not end anything."""
    print(f"moss: {text}", file=sys.stderr, flush=True)


class Writer:
    """Starts W&B, gives it what it lacks of earlier processes, then rows as they come.

    An online run that does not reach its server is recorded offline, to be sent by `wandb sync`.
    """

    def __init__(self, settings: Settings) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self._settings = settings
        mode = settings.mode
        try:
            self._run = self._init(wandb, mode)
        except Exception as error:
            if mode != "online":
                raise
            first = str(error).strip().partition("\n")[0]
            later = f"`wandb sync {settings.folder}/wandb/*`"
            warn(f"W&B cannot be reached ({first}); the run is recorded offline and can be sent later: {later}")
            mode = "offline"
            wandb.teardown()  # the attempt still holds the run's id
            self._run = self._init(wandb, mode)
        self._sent = self._run.starting_step - 1 if mode == "online" else last_step(Path(settings.folder), settings.options["id"])
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")
        self._run.define_metric("eval/loss", summary="min", step_metric="step")

    def _init(self, wandb: Any, mode: str) -> Any:
        """The console stays the run's."""
        settings = wandb.Settings(console="off", init_timeout=self._settings.start_seconds)
        return wandb.init(dir=self._settings.folder, mode=mode, resume="allow", settings=settings, **self._settings.options)

    def write(self, rows: Iterable[Row]) -> None:
        """Rows of steps that W&B has are left out."""
        for row in rows:
            step = int(row["step"])
            if step > self._sent:
                self._run.log(row, step=step, commit=True)
                self._sent = step

    def finish(self) -> None:
        """Send the rest; the process ends when the time for it is over."""
        guard = threading.Timer(self._settings.finish_seconds, _give_up, [self._settings])
        guard.daemon = True
        guard.start()
        self._run.finish()
        guard.cancel()


def last_step(folder: Path, identity: str) -> int:
    """The newest step in the files of a run's earlier processes; -1 where there is none."""
    steps = [-1]
    for path in wandb_files(folder):
        found, rows = read_history(path)
        if found == identity:
            steps += [row["_step"] for row in rows]
    return max(steps)


def rows_until(metrics: Path, step: int) -> list[Row]:
    """Rows of a metrics.jsonl up to a step; lines of one step become one row."""
    rows: dict[int, Row] = {}
    for line in metrics.read_text(encoding="utf-8").splitlines() if step and metrics.is_file() else []:
        try:
            record = json.loads(line)
            number = int(record["step"])
        except (ValueError, KeyError, TypeError):
            continue  # a line that is being written
        if number <= step:
            rows.setdefault(number, {}).update(flatten(record))
    return [rows[number] for number in sorted(rows)]


def _rows(lines: Iterable[str]) -> Iterator[Row]:
    """Until the end that the run tells, or that its death brings, perhaps in the middle of a line."""
    for line in lines:
        row = json.loads(line) if line.endswith("\n") else None
        if row is None:
            return
        yield row


def _give_up(settings: Settings) -> None:
    warn(f"W&B was still sending after {settings.finish_seconds:g} s; `wandb sync {settings.folder}/wandb/*` sends the rest")
    os._exit(1)


def main() -> int:
    """Until the end of the input. Signals are for the training run, whose end is the end of the input."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    lines = iter(sys.stdin)
    try:
        settings = Settings(**json.loads(next(lines)))
        writer = Writer(settings)
        writer.write(rows_until(Path(settings.metrics), settings.step))
        writer.write(_rows(lines))
        writer.finish()
    except Exception as error:  # whatever a logging service raises
        warn(f"W&B is switched off for this run: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
