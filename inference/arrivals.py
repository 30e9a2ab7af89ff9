"""What reaches a session, and when: frames and prompts on a schedule, and prompts that come in while it runs."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A frame or a prompt at stream time `t` seconds; exactly one of the two is set."""

    t: float
    frame: torch.Tensor | None = None
    """uint8 [3, S, S], fitted to the checkpoint's image size."""
    prompt: str | None = None


def merge(*schedules: Iterable[Arrival]) -> Iterator[Arrival]:
    """Several schedules as one, ordered by time; at equal times the earlier argument comes first. Stays lazy."""
    return heapq.merge(*schedules, key=lambda arrival: arrival.t)


class Inbox:
    """Hands a session what has arrived so far. `push_prompt` and `close` may be called from any thread.

    Args:
        schedule: arrivals with known times; drawn only when their time comes, so a video may be decoded as it is read.
        live: whether prompts may still come in from outside; such an inbox is exhausted only after `close`.
    """

    def __init__(self, schedule: Iterable[Arrival] = (), *, live: bool = False) -> None:
        self.wake = threading.Event()
        """Set when something came in from outside."""
        self._schedule = iter(schedule)
        self._next = next(self._schedule, None)
        self._live: deque[Arrival] = deque()
        self._open = live

    def push_prompt(self, text: str, t: float) -> None:
        """A prompt that the user typed at stream time `t`."""
        self._live.append(Arrival(t=t, prompt=text))
        self.wake.set()

    def close(self) -> None:
        """Nothing more will be pushed."""
        self._open = False
        self.wake.set()

    def due(self, now: float) -> list[Arrival]:
        """Everything that arrived up to `now` and was not handed out before."""
        self.wake.clear()
        found = []
        while self._live:
            found.append(self._live.popleft())
        while self._next is not None and self._next.t <= now:
            found.append(self._next)
            self._next = next(self._schedule, None)
        return found

    def next_time(self) -> float | None:
        """Time of the next scheduled arrival; None when there is none."""
        return None if self._next is None else self._next.t

    @property
    def exhausted(self) -> bool:
        """Nothing waits and nothing can come."""
        return self._next is None and not self._live and not self._open
