"""The record of a step: what metrics.jsonl, the progress bar and W&B are given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moss_train.feed.left_out import LeftOut
from moss_train.monitors.base import Update

if TYPE_CHECKING:
    from moss_train.setup import Session


class Recorder:
    """Makes records from updates, on every rank alike but for what says `here`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._left_out = LeftOut(session.folder.quarantine)

    def record(self, update: Update) -> dict[str, Any]:
        """Plain JSON values."""
        statistics, data = update.statistics, update.data
        record: dict[str, Any] = {"step": update.step, "loss": statistics.loss}
        record |= {f"loss_{name}": loss for name, loss in statistics.class_loss.items()}
        if statistics.dataset_loss:
            record["dataset_loss"] = statistics.dataset_loss
        if statistics.accuracy is not None:
            record["accuracy"] = statistics.accuracy
        if left_out := self._left_out.counts():
            record["left_out"] = left_out
        record |= self._session.counts.record()
        if not update.applied:
            record["skipped"] = True
        return record | {
            "grad_norm": update.grad_norm,
            "learning_rate": update.learning_rates["decoder"],
            "vision_learning_rate": update.learning_rates["vision"],
            "targets": statistics.targets,
            "tokens": statistics.tokens,
            "frames": statistics.frames,
            "frames_encoded_here": statistics.encoded_by_rank[self._session.layout.rank],
            "padding": 1.0 - data.real_rows / data.rows,
            "seconds": update.seconds,
            "data_seconds": data.data_seconds,
            "feed_seconds": data.feed_seconds,
            "tokens_per_second": statistics.tokens / update.seconds,
            "frames_per_second": statistics.frames / update.seconds,
        }
