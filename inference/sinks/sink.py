"""What takes the events of a stream, and several of them as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from inference.evaluation.schema import TraceEvent


class EventSink(Protocol):
    """Takes every event as it happens, on the session's thread."""

    def __call__(self, event: TraceEvent) -> None:
        """One event; they come in the order in which they were dealt with."""
        ...

    def close(self, *, whole: bool) -> None:
        """Nothing more comes.

        Args:
            whole: the stream came to its end; False: something broke, and files stay under their provisional names.
        """
        ...


class Sinks:
    """Several sinks as one."""

    def __init__(self, sinks: Sequence[EventSink]) -> None:
        self._sinks = list(sinks)

    def __call__(self, event: TraceEvent) -> None:
        for sink in self._sinks:
            sink(event)

    def close(self, *, whole: bool) -> None:
        """Close all, also when closing one of them fails; the first failure is raised."""
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close, whole=whole)
