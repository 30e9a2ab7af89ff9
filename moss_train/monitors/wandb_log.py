"""Weights & Biases. It never ends or delays a run: another process sends, and whatever it meets becomes one warning."""

from __future__ import annotations

import dataclasses
import secrets
from pathlib import Path
from typing import Any

from moss_train.config.logging import LoggingConfig
from moss_train.monitors.base import Monitor
from moss_train.monitors.names import flatten
from moss_train.monitors.wandb_sender import WandbSender
from moss_train.monitors.wandb_writer import Settings, warn


class WandbLog(Monitor):
    """Logs records under the run's own steps, one row a step; a continued run continues its W&B run.

    A row is handed over when the next step begins, so that it holds the evaluations of its step. Steps that a continued run
    repeats are not sent again, and rows that W&B lost when a process was killed are taken from metrics.jsonl.

    Args:
        folder: of W&B's files, with the run's id.
        settings: the `logging` group.
        name: display name.
        config: the run's, as plain values.
        metrics: the run's metrics.jsonl.
        every: steps between rows; the last step has one too.
    """

    def __init__(
        self, folder: Path, settings: LoggingConfig, name: str, config: dict[str, Any], metrics: Path, every: int
    ) -> None:  # fmt: skip
        self._folder = folder
        self._metrics = metrics
        self._every = every
        self._last = 0
        self._row: dict[str, float] = {}
        self._settings = settings
        self._options: dict[str, Any] = {
            "project": settings.wandb_project, "entity": settings.wandb_entity, "name": settings.wandb_name or name,
            "group": settings.wandb_group, "tags": settings.wandb_tags or None, "notes": settings.wandb_notes, "config": config,
        }  # fmt: skip
        self.sender: WandbSender | None = None
        """Where rows go; None where W&B could not be started."""

    def started(self, step: int, steps: int) -> None:
        self._last = steps
        settings = self._settings
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            identity = self._folder / "run_id"
            if not identity.is_file():
                identity.write_text(secrets.token_hex(4))
            self._options["id"] = identity.read_text().strip()
            wanted = Settings(
                str(self._folder.resolve()), settings.wandb, str(self._metrics.resolve()), step,
                settings.wandb_start_seconds, settings.wandb_finish_seconds, self._options,
            )  # fmt: skip
            self.sender = WandbSender(dataclasses.asdict(wanted), settings.wandb_finish_seconds)
        except OSError as error:
            warn(f"W&B is switched off for this run: {error}")

    def stepped(self, record: dict[str, Any]) -> None:
        self._hand_over()
        if record["step"] % self._every == 0 or record["step"] == self._last:
            self._row = flatten(record)

    def evaluated(self, record: dict[str, Any]) -> None:
        if self._row and self._row["step"] != record["step"]:
            self._hand_over()
        self._row |= flatten(record)

    def finished(self) -> None:
        self._hand_over()
        if self.sender is not None:
            self.sender.finish()

    def _hand_over(self) -> None:
        if self._row and self.sender is not None:
            self.sender.send(self._row)
        self._row = {}
