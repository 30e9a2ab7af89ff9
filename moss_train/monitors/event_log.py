"""`events.jsonl`: what happened to a run and when: starts, checkpoints, ends. Lines are never taken back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from moss_train.monitors.base import Monitor, SaveEvent


class EventLog(Monitor):
    """One JSON object a line: `time` (UTC), `event`, `step` and what belongs to the event.

    Args:
        path: the file.
        setting: what the line of a start says beside the step: ranks, layout, device.
    """

    def __init__(self, path: Path, setting: Mapping[str, Any]) -> None:
        self._path = path
        self._setting = dict(setting)
        self._step = 0

    def started(self, step: int, steps: int) -> None:
        self._step = step
        self._write("started", step, steps=steps, **self._setting)

    def stepped(self, record: dict[str, Any]) -> None:
        self._step = record["step"]

    def saved(self, event: SaveEvent) -> None:
        more: dict[str, Any] = {"stall_seconds": event.stall_seconds}
        if event.path is not None:
            more["checkpoint"] = event.path.name
        if event.reason:
            more["reason"] = event.reason
        self._write(f"checkpoint {event.kind}", event.step, **more)

    def finished(self) -> None:
        self._write("ended", self._step)

    def _write(self, event: str, step: int, **more: Any) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now, "event": event, "step": step} | more) + "\n")
