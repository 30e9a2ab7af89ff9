"""The record of a session: every event with its stream time and, in real time, the world's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from inference.evaluation.schema import TraceEvent
from inference.session.clock import Clock
from inference.session.metrics import SessionMetrics


class EventLog:
    """Stamps events, keeps them, counts them and hands them on.

    Args:
        clock: the session's.
        on_event: called with every event, on the session's thread.
        keep: whether `events` holds them all.
    """

    def __init__(self, clock: Clock, on_event: Callable[[TraceEvent], None] | None, keep: bool) -> None:
        self.events: list[TraceEvent] = []
        self.metrics = SessionMetrics()
        self._clock, self._on_event, self._keep = clock, on_event, keep

    def emit(self, kind: str, *, t: float | None = None, **fields: Any) -> None:
        """Something happened, now or at stream time `t`."""
        # Made once, with everything: this happens for every token.
        at = self._clock.now() if t is None else t
        self._pass_on(TraceEvent(t=at, kind=kind, wall_t=self._clock.wall(), **fields))

    def record(self, event: TraceEvent) -> None:
        """An event that has its time; one without world time gets the present one."""
        if event.wall_t is None:
            event = dataclasses.replace(event, wall_t=self._clock.wall())
        self._pass_on(event)

    def _pass_on(self, event: TraceEvent) -> None:
        self.metrics.add(event)
        if self._keep:
            self.events.append(event)
        if self._on_event is not None:
            self._on_event(event)
