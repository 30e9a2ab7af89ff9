"""What the monitors themselves cost."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from moss_train.monitors.base import Monitor, Update

_HOOKS = ("begun", "prepared", "measured", "stepped", "evaluated", "saved")


class MonitorTime(Monitor):
    """Times every hook that the given monitors have, and records the seconds of each since the record before."""

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._seconds: dict[str, float] = {}
        for monitor in monitors:
            title = monitor.name or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(monitor).__name__).lower()
            for hook in _HOOKS:
                if getattr(type(monitor), hook, None) is not getattr(Monitor, hook, None):
                    setattr(monitor, hook, self._timed(title, getattr(monitor, hook)))

    def measured(self, update: Update) -> dict[str, Any]:
        seconds, self._seconds = self._seconds, {}
        return {"monitor_seconds": seconds | {"total": sum(seconds.values())}}

    def _timed(self, title: str, hook: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return hook(*arguments)
            finally:
                self._seconds[title] = self._seconds.get(title, 0.0) + time.perf_counter() - begin

        return timed
