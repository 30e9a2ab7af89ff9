"""How fast the run goes, and where a step's time goes."""

from __future__ import annotations

from typing import Any

from moss_train.monitors.base import Monitor, Update


class Speed(Monitor):
    """Over all ranks, by the clock of the first, whose step ends with everyone's."""

    def measured(self, update: Update) -> dict[str, Any]:
        statistics = update.statistics
        record: dict[str, Any] = {
            "seconds": update.seconds,
            "tokens_per_second": statistics.tokens / update.seconds,
            "frames_per_second": statistics.frames / update.seconds,
        }
        return record | ({"phase_seconds": dict(update.phases)} if update.phases else {})
