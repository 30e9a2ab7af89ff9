"""Loss by token class and by dataset, and the share of right patches in the dense warm start."""

from __future__ import annotations

from typing import Any

from moss_train.monitors.base import Monitor, Update


class Losses(Monitor):
    """Unweighted means over the targets of the global batch; a class or dataset without targets is absent."""

    def measured(self, update: Update) -> dict[str, Any]:
        statistics = update.statistics
        record: dict[str, Any] = {f"loss_{name}": loss for name, loss in statistics.class_loss.items()}
        if statistics.dataset_loss:
            record["dataset_loss"] = statistics.dataset_loss
        if statistics.accuracy is not None:
            record["accuracy"] = statistics.accuracy
        return record
