"""From a source to a session: at the pace of time in a thread, or as a schedule for a virtual clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from inference.session.arrivals import Arrival
from inference.sources.source import FrameSource, Now
from model.errors import InputError

Tap = Callable[[torch.Tensor], None]
"""Shown every frame on its way: uint8 [3, S, S]."""


class FrameInbox(Protocol):
    """Where frames are put."""

    def push_frame(self, frame: torch.Tensor, t: float) -> object:
        """A frame that arrives at stream time `t`; may wait until there is room."""
        ...


def schedule(source: FrameSource, clock: Now, tap: Tap | None = None) -> Iterator[Arrival]:
    """A recorded source as arrivals, drawn when a virtual clock reaches them.

    Raises:
        InputError: the source is live.
    """
    if source.live:
        raise InputError(f"{source.name} is live; it needs real time: leave out --virtual_clock")

    def draw() -> Iterator[Arrival]:
        try:
            for timed in source.frames(clock):
                if tap is not None:
                    tap(timed.frame)
                yield Arrival(t=timed.t, frame=timed.frame)
        finally:
            source.close()

    return draw()


class SourcePump:
    """A thread that draws frames and puts each into the inbox at its time, never before.

    A frame is due at its own time since the clock's start, however long the frames before it took, so that the pace
    does not drift; the next frame is decoded while the time until it passes.

    Args:
        source: where frames come from; closed at the end.
        inbox: where they go.
        clock: real time; the stream begins at its 0.
        fps: of the source; a frame that is put in half a frame's time after it was due counts as late.
        tap: shown every frame on its way.
        on_end: called in the thread when no more frames will come.

    Attributes:
        late: frames put in too late.
        error: why the source ended before its time, or None.
    """

    def __init__(
        self,
        source: FrameSource,
        inbox: FrameInbox,
        clock: Now,
        *,
        fps: float,
        tap: Tap | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.late = 0
        self.error: BaseException | None = None
        self._source, self._inbox, self._clock = source, inbox, clock
        self._allowance = 0.5 / fps
        self._tap, self._on_end = tap, on_end
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"frames of {source.name}", daemon=True)

    def start(self) -> None:
        """Begin to draw."""
        self._thread.start()

    def stop(self, timeout: float = 0.5) -> None:
        """End early, from any thread; returns once the thread ended, or after `timeout` seconds.

        A source that waits for a network that is silent ends later, and nobody waits for it.
        """
        self._stopped.set()
        self._source.close()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def raise_error(self) -> None:
        """Raise what ended the source before its time, if anything did."""
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            for timed in self._source.frames(self._clock):
                if self._stopped.wait(max(0.0, timed.t - self._clock.now())):
                    return
                self.late += self._clock.now() - timed.t > self._allowance
                if self._tap is not None:
                    self._tap(timed.frame)
                self._inbox.push_frame(timed.frame, timed.t)
        except BaseException as error:  # handed to the thread that waits for the session
            self.error = error
        finally:
            self._source.close()
            if self._on_end is not None:
                self._on_end()
