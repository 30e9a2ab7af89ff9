"""The record of a step: what metrics.jsonl, the progress bar, W&B and the report are given. Monitors add the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moss_train.monitors.base import Update

if TYPE_CHECKING:
    from moss_train.setup import Session


class Recorder:
    """Begins records, on every rank alike but for what says `here`."""

    def __init__(self, session: Session) -> None:
        self._rank = session.layout.rank

    def record(self, update: Update) -> dict[str, Any]:
        """Plain JSON values."""
        statistics = update.statistics
        record: dict[str, Any] = {"step": update.step, "loss": statistics.loss, "grad_norm": update.grad_norm}
        if not update.applied:
            record["skipped"] = True
        return record | {
            "targets": statistics.targets,
            "tokens": statistics.tokens,
            "frames": statistics.frames,
            "frames_encoded_here": statistics.encoded_by_rank[self._rank],
        }
