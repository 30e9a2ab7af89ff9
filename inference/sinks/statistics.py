"""Counts of a running stream, from its events alone."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from inference.evaluation.schema import TraceEvent

WINDOW = 5.0
"""Seconds over which rates are taken."""


@dataclass
class StreamStatistics:
    """What a person who watches a stream wants to know; `feed` every event. Any thread may ask."""

    now: float = 0.0
    """Stream time of the newest event, seconds."""
    submitted: int = 0
    processed: int = 0
    dropped: int = 0
    rejected: int = 0
    tokens: int = 0
    """Spoken tokens; silences are not among them."""
    silences: int = 0
    silent_run: int = 0
    """Silences since the last spoken token."""
    interruptions: int = 0
    first_token: float | None = None
    """Seconds from the last answered prompt to the first token behind it."""
    _frame_times: deque[float] = field(default_factory=deque)
    _token_times: deque[float] = field(default_factory=deque)
    _asked: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Old times are forgotten by whoever looks."""

    @property
    def pending(self) -> int:
        """Frames that were submitted and not settled yet."""
        return self.submitted - self.processed - self.dropped - self.rejected

    def feed(self, event: TraceEvent) -> None:
        """Count one event."""
        with self._lock:
            self._count(event)

    def _count(self, event: TraceEvent) -> None:
        self.now = max(self.now, event.t)
        match event.kind:
            case "frame_in":
                self.submitted += 1
                _note(self._frame_times, event.t)
            case "frame_done":
                self.processed += 1
            case "frame_dropped":
                self.dropped += 1
            case "frame_rejected":
                self.rejected += 1
            case "prompt":
                self._asked = event.t
            case "turn_interrupted":
                self.interruptions += 1
            case "silence":
                self.silences += 1
                self.silent_run += 1
            case "token" if event.token is not None:
                self._speak(event.t)

    def frames_per_second(self, now: float) -> float:
        """Frames that came in over the last seconds."""
        with self._lock:
            return _rate(self._frame_times, now)

    def tokens_per_second(self, now: float) -> float:
        """Tokens spoken over the last seconds, times of silence included."""
        with self._lock:
            return _rate(self._token_times, now)

    def summary(self, now: float) -> str:
        """One line of all of it."""
        first = "-" if self.first_token is None else f"{self.first_token * 1000:.0f} ms"
        frames = f"{self.processed} seen, {self.pending} pending, {self.dropped} dropped, {self.rejected} rejected"
        return (
            f"{now:.1f} s | frames {self.frames_per_second(now):.1f}/s: {frames} | "
            f"tokens {self.tokens_per_second(now):.1f}/s: {self.tokens} said, first after {first} | "
            f"silent for {self.silent_run} tokens, interrupted {self.interruptions} times"
        )

    def _speak(self, t: float) -> None:
        self.tokens += 1
        self.silent_run = 0
        _note(self._token_times, t)
        if self._asked is not None:
            self.first_token, self._asked = max(0.0, t - self._asked), None


def _note(times: deque[float], t: float) -> None:
    times.append(t)
    while times[0] < t - WINDOW:
        times.popleft()


def _rate(times: deque[float], now: float) -> float:
    while times and times[0] < now - WINDOW:
        times.popleft()
    return len(times) / min(WINDOW, now) if now > 0 and times else 0.0
