"""Learning rates of the update, by part and by the modules that have one of their own."""

from __future__ import annotations

from typing import Any

from moss_train.monitors.base import Monitor, Update


class LearningRates(Monitor):
    """`learning_rate` is the decoder's."""

    def measured(self, update: Update) -> dict[str, Any]:
        rates = dict(update.learning_rates)
        record: dict[str, Any] = {"learning_rate": rates.pop("decoder"), "vision_learning_rate": rates.pop("vision")}
        return record | ({"learning_rates": rates} if rates else {})
