"""Sessions for tests: a small random model that sometimes speaks, frames, and what a run said."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from typing import Any

import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine, StepRequest
from inference.session.arrivals import Arrival
from inference.session.clock import VirtualClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings

FRAMES = torch.randint(0, 256, (24, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


class RecordingEngine(StepEngine):
    """The engine, with a list of all that was fed."""

    steps: list[list[int]]

    @property
    def fed(self) -> list[int]:
        return [token for step in self.steps for token in step]

    def serve(self, requests: Sequence[StepRequest]) -> list[Any]:
        self.steps += [list(request.tokens) for request in requests]
        return super().serve(requests)


class BusyWallClock:
    """Real time as a test may have it: every reading of it takes a while, and waiting ends a little late.

    Args:
        delays: seconds, drawn round and round.
    """

    def __init__(self, delays: list[float]) -> None:
        self._now = 0.0
        self._delays = itertools.cycle(delays)

    def now(self) -> float:
        self._now += next(self._delays)
        return self._now

    def wait_until(self, t: float, wake: threading.Event) -> None:
        self._now = max(self._now, t) + next(self._delays)

    def wall(self) -> float | None:
        return 1.7e9 + self._now


def run(
    engine: RecordingEngine,
    tokenizer: Tokenizer,
    arrivals: Sequence[Arrival],
    *,
    until: float | None = None,
    settings: SessionSettings | None = None,
) -> RealtimeSession:
    engine.steps = []
    settings = settings or SessionSettings(tokens_per_second=8, max_new_tokens=300)
    session = RealtimeSession(engine, tokenizer, Inbox(arrivals), VirtualClock(), settings)
    session.run(until)
    return session


def frames(count: int, fps: float = 1.0) -> list[Arrival]:
    return [Arrival(t=i / fps, frame=FRAMES[i]) for i in range(count)]


def said(session: RealtimeSession, before: float = float("inf")) -> list[tuple[float, int | None, int | None]]:
    return [(e.t, e.frame, e.token) for e in session.events if e.kind in ("token", "silence") and e.t < before]
