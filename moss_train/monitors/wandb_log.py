"""Weights & Biases. It never ends a run: whatever it raises becomes one warning, and the run goes on without it."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any

from moss_train.monitors.base import Monitor


class WandbLog(Monitor):
    """Logs records under the run's own steps; a continued run continues its W&B run."""

    def __init__(self, folder: Path, project: str, name: str, mode: str, config: dict[str, Any]) -> None:
        self._folder = folder
        self._options: dict[str, Any] = {"project": project, "name": name, "mode": mode, "config": config}
        self._run: Any = None

    def started(self, step: int, steps: int) -> None:
        def start() -> None:
            import wandb

            self._folder.mkdir(parents=True, exist_ok=True)
            identity = self._folder / "run_id"
            if not identity.is_file():
                identity.write_text(secrets.token_hex(4))
            os.environ.setdefault("WANDB_SILENT", "true")
            self._run = wandb.init(
                dir=str(self._folder), id=identity.read_text().strip(), resume="allow", reinit="finish_previous", **self._options
            )

        self._safely(start)

    def stepped(self, record: dict[str, Any]) -> None:
        self._log(record)

    def evaluated(self, record: dict[str, Any]) -> None:
        self._log(record)

    def finished(self) -> None:
        if self._run is not None:
            self._safely(self._run.finish)

    def _log(self, record: dict[str, Any]) -> None:
        if self._run is not None:
            self._safely(lambda: self._run.log(record, step=record["step"]))

    def _safely(self, action: Any) -> None:
        try:
            action()
        except Exception as error:  # whatever a logging service raises must not end training
            self._run = None
            print(f"moss: W&B is switched off for this run: {error}", file=sys.stderr, flush=True)
