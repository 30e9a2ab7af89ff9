"""Frames that arrive while a model speaks: when each is due, and its encoding beside the decoding."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import torch

from inference.benchmark.meter import Meter


class Ticket(Protocol):
    """A frame on its way through the tower."""

    @property
    def ready(self) -> bool:
        """Whether `features` would not make the decoder wait."""
        ...

    def features(self) -> torch.Tensor:
        """[1, P, H]; what reads it is ordered behind its making."""
        ...


Submit = Callable[[torch.Tensor], Ticket]
"""Takes a frame uint8 [3, S, S] on arrival: `FrameEncoder.submit`."""


class FrameFeed:
    """The frames of one stream, on time.

    Frame i is due at `begin + i / fps`. Whoever speaks asks at each token boundary: what is due goes to the encoder, and what
    is encoded comes back in its order.

    Args:
        frames: uint8 [n, 3, S, S], taken round and round.
        begin: when the first is due.
        fps: frames a second.
        submit: takes one frame.
        meter: whose clock counts.
    """

    def __init__(self, frames: torch.Tensor, begin: float, fps: float, submit: Submit, meter: Meter) -> None:
        self._frames, self._begin, self._fps, self._submit, self._meter = frames, begin, fps, submit, meter
        self._waiting: deque[tuple[float, Ticket]] = deque()
        self.submitted = 0

    def take(self, most: int) -> list[tuple[float, torch.Tensor]]:
        """(due, features [1, P, H]) of frames that are encoded now and were not taken before, `most` at the most."""
        while (due := self._begin + self.submitted / self._fps) <= self._meter.now():
            self._waiting.append((due, self._submit(self._frames[self.submitted % len(self._frames)])))
            self.submitted += 1
        found: list[tuple[float, torch.Tensor]] = []
        while len(found) < most and self._waiting and self._waiting[0][1].ready:
            due, ticket = self._waiting.popleft()
            found.append((due, ticket.features()))
        return found
