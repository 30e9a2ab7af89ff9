"""How long saving kept the loop from training."""

from __future__ import annotations

from typing import Any

from moss_train.monitors.base import Monitor, SaveEvent, Update


class CheckpointStall(Monitor):
    """Declared state: the total, without the stall of the very checkpoint that holds it."""

    name = "checkpoint_stall"

    def __init__(self, every: int = 1) -> None:
        self._every = every
        """Steps between records that are kept."""
        self._total = 0.0
        self._since = 0.0
        """Since the last record."""

    def saved(self, event: SaveEvent) -> None:
        self._since += event.stall_seconds
        self._total += event.stall_seconds

    def measured(self, update: Update) -> dict[str, Any]:
        return {"checkpoint_stall_seconds": self._since, "checkpoint_stall_total": self._total} if self._total else {}

    def stepped(self, record: dict[str, Any]) -> None:
        if record["step"] % self._every == 0:
            self._since = 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"total": self._total}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._total = float(state["total"])
