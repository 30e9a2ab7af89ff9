"""One pass over the events of a stream."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from inference.evaluation.schema import Trace, TraceEvent

_SETTLES = ("frame_done", "frame_dropped", "frame_rejected")
_SPOKEN = ("prompt", "stop", "reset")


@dataclass
class StreamFacts:
    """Everything that the metrics are made of; times are stream seconds."""

    frame_latency: list[float] = field(default_factory=list)
    staleness: list[float] = field(default_factory=list)
    first_token: list[float] = field(default_factory=list)
    after_frame: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    """Longest of each utterance with at least two tokens."""
    barge_in_last: list[float] = field(default_factory=list)
    barge_in_first: list[float] = field(default_factory=list)
    slot_tokens: list[float] = field(default_factory=list)
    """Tokens, silence included, that were said while a frame was the newest one seen; the slot of the last frame is left out, for
    nobody knows how long it would have been."""
    arrivals: dict[int, float] = field(default_factory=dict)
    settled: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_SETTLES, 0))
    reasons: Counter[str] = field(default_factory=Counter)
    """Frames that were not processed, by `dropped.REASON` and `rejected.REASON`."""
    most_pending: int = 0
    violations: list[str] = field(default_factory=list)


class StreamReader:
    """Feeds on events in the order of a trace; `facts` is complete after `finish`."""

    def __init__(self) -> None:
        self.facts = StreamFacts()
        self._pending: set[int] = set()
        self._order: list[int] = []
        """Frames as they came, those at the end that are settled left out when somebody looks."""
        self._newest: int | None = None
        self._asked: float | None = None
        self._cutting: float | None = None
        """When the prompt came that cut what was being said."""
        self._old_last: float | None = None
        """Last token of the utterance that was cut."""
        self._last_token: float | None = None
        self._stall: float | None = None
        self._slot: int | None = None
        self._in_slot = 0

    def feed(self, event: TraceEvent) -> None:
        """Take the next event."""
        if event.kind == "frame_in":
            self._arrive(event)
        elif event.kind in _SETTLES:
            self._settle(event)
        elif event.kind == "prompt":
            self._prompt(event)
        elif event.kind == "stop":
            self._asked = None
            self._end_utterance()
        elif event.kind == "turn_interrupted":
            self._old_last = self._last_token
            self._end_utterance()
        elif event.kind in ("token", "silence"):
            self._say(event)

    def finish(self, ended: bool) -> StreamFacts:
        """After the last event.

        Args:
            ended: whether the trace says that the stream ended; then every frame must be settled.
        """
        self._end_utterance()
        if ended and self._pending:
            self._violate(f"{len(self._pending)} frames were never settled, the first is {min(self._pending)}")
        return self.facts

    def _arrive(self, event: TraceEvent) -> None:
        if event.frame is None or event.frame in self.facts.arrivals:
            self._violate(f"frame {event.frame} came twice at {event.t:g} s")
            return
        self.facts.arrivals[event.frame] = event.t
        self._pending.add(event.frame)
        self._order.append(event.frame)
        self.facts.most_pending = max(self.facts.most_pending, len(self._pending))
        self._newest = event.frame

    def _settle(self, event: TraceEvent) -> None:
        if event.frame not in self._pending:
            self._violate(f"{event.kind} of frame {event.frame} at {event.t:g} s, which is not pending")
            return
        self._pending.remove(event.frame)
        self.facts.settled[event.kind] += 1
        if event.kind != "frame_done":
            self.facts.reasons[f"{event.kind.removeprefix('frame_')}.{event.reason or 'unknown'}"] += 1
        if event.kind == "frame_rejected" and event.frame == self._newest:
            while self._order and self._order[-1] not in self._pending:
                self._order.pop()
            self._newest = self._order[-1] if self._order else self._slot
        if event.kind == "frame_done":
            self.facts.frame_latency.append(event.t - self.facts.arrivals[event.frame])
            if self._slot is not None:
                self.facts.slot_tokens.append(float(self._in_slot))
            self._slot, self._in_slot = event.frame, 0

    def _prompt(self, event: TraceEvent) -> None:
        if event.reason == "stream_end":
            return
        self._asked = event.t
        self._cutting = event.t if self._last_token is not None else None

    def _say(self, event: TraceEvent) -> None:
        if event.token is not None or event.kind == "token":
            self._in_slot += 1
        arrivals = self.facts.arrivals
        seen = event.frame if event.frame is not None else self._slot
        if seen in arrivals and self._newest in arrivals:
            self.facts.staleness.append(max(0.0, arrivals[self._newest] - arrivals[seen]))
        if event.kind == "silence":
            self._end_utterance()
            return
        if self._last_token is None or self._asked is not None:
            self._begin_utterance(event, seen)
        elif event.t - self._last_token > (self._stall or 0.0) or self._stall is None:
            self._stall = event.t - self._last_token
        self._last_token = event.t

    def _begin_utterance(self, event: TraceEvent, seen: int | None) -> None:
        if self._asked is not None:
            self.facts.first_token.append(event.t - self._asked)
            if self._cutting is not None and self._old_last is not None:
                self.facts.barge_in_last.append(max(0.0, self._old_last - self._cutting))
                self.facts.barge_in_first.append(event.t - self._cutting)
        elif seen in self.facts.arrivals:
            self.facts.after_frame.append(event.t - self.facts.arrivals[seen])
        self._end_utterance()
        self._asked = self._cutting = self._old_last = None

    def _end_utterance(self) -> None:
        if self._stall is not None:
            self.facts.stalls.append(self._stall)
        self._last_token = self._stall = None

    def _violate(self, what: str) -> None:
        self.facts.violations.append(what)


def read_stream(trace: Trace) -> StreamFacts:
    """The facts of a push trace.

    Frames arrive between two token boundaries and are reported at the second: they are put where their time belongs. Prompts
    stay where they are, for what was said between their arrival and the boundary still belongs to the old turn.
    """
    reader = StreamReader()
    arrivals = sorted((event for event in trace.events if event.kind == "frame_in"), key=lambda event: event.t)
    place, ended = 0, False
    for event in trace.events:
        if event.kind == "frame_in":
            continue
        if event.kind not in _SPOKEN:
            while place < len(arrivals) and arrivals[place].t <= event.t:
                reader.feed(arrivals[place])
                place += 1
        ended = ended or event.kind == "end"
        reader.feed(event)
    for event in arrivals[place:]:
        reader.feed(event)
    return reader.finish(ended)
