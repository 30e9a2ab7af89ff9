"""What the data cost the step: waiting for the loader, handing rows out, padding."""

from __future__ import annotations

from typing import Any

from moss_train.monitors.base import Monitor, Update


class DataWait(Monitor):
    """A wait of the slowest replica is everyone's."""

    def measured(self, update: Update) -> dict[str, Any]:
        data = update.data
        return {
            "padding": 1.0 - data.real_rows / data.rows,
            "data_seconds": data.data_seconds,
            "data_share": data.data_seconds / update.seconds,
            "feed_seconds": data.feed_seconds,
        }
