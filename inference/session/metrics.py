"""How fast a session was: delays, staleness, stalls, and the share of the stream that was spent computing.

All in stream seconds, in memory that does not grow with the stream. Quantiles come from buckets one per cent wide.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from inference.evaluation.schema import TraceEvent

_WIDTH = math.log(1.01)
_LEAST = 1e-6
"""Seconds below which values share a bucket."""
_MOST_REMEMBERED = 4096
"""Arrival times kept for frames that nobody settled yet."""


class Distribution:
    """Non-negative values: how many, the largest, the mean, and quantiles within one per cent."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.largest = 0.0
        self._buckets: Counter[int] = Counter()

    def add(self, value: float) -> None:
        """Count one value; below 0 counts as 0."""
        value = max(0.0, value)
        self.count += 1
        self.total += value
        self.largest = max(self.largest, value)
        self._buckets[0 if value < _LEAST else 1 + round(math.log(value / _LEAST) / _WIDTH)] += 1

    def quantile(self, share: float) -> float:
        """The smallest value that at least `share` of the values do not exceed, within one per cent; 0 without values."""
        need = max(1, math.ceil(share * self.count))
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= need:
                value = 0.0 if bucket == 0 else _LEAST * math.exp((bucket - 1) * _WIDTH)
                return min(value, self.largest)
        return 0.0

    def summary(self) -> dict[str, float] | None:
        """p50, p95, p99, max and mean; None without values."""
        if not self.count:
            return None
        quantiles = {f"p{round(100 * share)}": self.quantile(share) for share in (0.5, 0.95, 0.99)}
        return {**quantiles, "max": self.largest, "mean": self.total / self.count}


class MemoryTrack:
    """Bytes over time in bounded memory: where too many readings were kept, every second one goes."""

    _MOST = 512

    def __init__(self) -> None:
        self._readings: list[tuple[float, int]] = []
        self._every, self._skipped = 1, 0
        self._peak = 0

    def add(self, t: float, num_bytes: int) -> None:
        """A reading at stream time `t` seconds."""
        self._peak = max(self._peak, num_bytes)
        self._skipped += 1
        if self._skipped < self._every:
            return
        self._skipped = 0
        self._readings.append((t, num_bytes))
        if len(self._readings) > self._MOST:
            self._readings, self._every = self._readings[::2], 2 * self._every

    def summary(self) -> dict[str, float] | None:
        """`peak_bytes`, and `slope_per_minute`: rise of the least-squares line through the second half of the readings, by when
        a window is full, in bytes a minute; None before there are readings."""
        half = self._readings[len(self._readings) // 2 :]
        if not half:
            return None
        mean_t = sum(t for t, _ in half) / len(half)
        mean_b = sum(num_bytes for _, num_bytes in half) / len(half)
        spread = sum((t - mean_t) ** 2 for t, _ in half)
        rise = sum((t - mean_t) * (num_bytes - mean_b) for t, num_bytes in half)
        return {"peak_bytes": float(self._peak), "slope_per_minute": 60 * rise / spread if spread else 0.0}


class SessionMetrics:
    """Fed with every event of a session.

    Attributes:
        frame_latency: from a frame's arrival to the end of the step that fed it.
        staleness: at each token, arrival of the newest frame that had come less that of the newest one that it sees.
        first_token: from a prompt's arrival to the first text token of its turn (TTFT-S).
        barge_in: from the arrival of a prompt or stop that cut an answer to the cut.
        slot_tokens: tokens said between two frames.
        longest_stall: longest time between two tokens of one utterance.
        memory: bytes of pages that the session holds.
    """

    def __init__(self) -> None:
        self.frame_latency = Distribution()
        self.staleness = Distribution()
        self.first_token = Distribution()
        self.barge_in = Distribution()
        self.slot_tokens = Distribution()
        self.memory = MemoryTrack()
        self.longest_stall = 0.0
        self.text_tokens = 0
        self.silences = 0
        self.busy = 0.0
        """Seconds spent in steps."""
        self._arrived: dict[int, float] = {}
        self._newest_arrived: float | None = None
        self._newest_before: float | None = None
        """What `_newest_arrived` was before the newest frame, which may turn out to be unusable."""
        self._newest_seen: float | None = None
        self._seen_frame: int | None = None
        self._asked: float | None = None
        self._cut: float | None = None
        self._last_token: float | None = None
        self._in_slot = 0

    def add(self, event: TraceEvent) -> None:
        """Count one event."""
        if event.kind == "frame_in" and event.frame is not None:
            self._newest_before = self._newest_arrived
            self._arrived[event.frame] = self._newest_arrived = event.t
            if len(self._arrived) > _MOST_REMEMBERED:
                del self._arrived[next(iter(self._arrived))]
        elif event.kind == "frame_done" and event.frame is not None:
            self._see(event.frame, event.t)
        elif event.kind in ("frame_dropped", "frame_rejected") and event.frame is not None:
            newest = next(reversed(self._arrived), None)
            self._arrived.pop(event.frame, None)
            if event.kind == "frame_rejected" and event.frame == newest:
                self._newest_arrived = self._newest_before  # its time may be any number
        elif event.kind in ("prompt", "stop"):
            self._asked = event.t if event.kind == "prompt" else None
            self._cut = event.t
        elif event.kind == "turn_interrupted":
            if self._cut is not None:
                self.barge_in.add(event.t - self._cut)
            self._last_token = None
        elif event.kind in ("token", "silence") and event.token is not None:
            self._say(event)

    def _see(self, frame: int, t: float) -> None:
        arrived = self._arrived.pop(frame, None)
        if arrived is None:
            return
        self.frame_latency.add(t - arrived)
        if self._seen_frame is not None and self._newest_seen != arrived:
            self.slot_tokens.add(self._in_slot)
            self._in_slot = 0
        self._newest_seen, self._seen_frame = arrived, frame

    def _say(self, event: TraceEvent) -> None:
        self._in_slot += 1
        if self._newest_seen is not None and self._newest_arrived is not None:
            self.staleness.add(self._newest_arrived - self._newest_seen)
        if event.kind == "silence":
            self.silences += 1
            self._last_token = None
            return
        self.text_tokens += 1
        if self._asked is not None:
            self.first_token.add(event.t - self._asked)
            self._asked = None
        if self._last_token is not None:
            self.longest_stall = max(self.longest_stall, event.t - self._last_token)
        self._last_token = event.t

    def summary(self, seconds: float, frames: dict[str, Any]) -> dict[str, Any]:
        """Plain values for the event `end`.

        Args:
            seconds: how long the stream was.
            frames: the ledger's.
        """
        spreads = ("frame_latency", "staleness", "first_token", "barge_in", "slot_tokens")
        return {
            **{name: getattr(self, name).summary() for name in spreads},
            "memory": self.memory.summary(),
            "longest_stall": self.longest_stall,
            "text_tokens": self.text_tokens,
            "silences": self.silences,
            "seconds": seconds,
            "busy_seconds": self.busy,
            "real_time_factor": self.busy / seconds if seconds > 0 else None,
            "frames": frames,
        }
