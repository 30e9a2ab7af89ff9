"""Scenario and Trace: the one schema of streaming evaluation, both stored as JSON lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class PromptEvent:
    """A user's prompt that arrives at stream time `t` seconds."""

    t: float
    text: str


@dataclass(kw_only=True)
class Span:
    """Ground truth: something worth saying between `a` and `b` seconds (both inclusive, frame times)."""

    a: float
    b: float
    text: str = ""
    kind: str = "event"
    """event | answer | correction | count | alert | not_yet | narration, or another name that scores are to be split by"""
    prompt: int | None = None
    """Index of the prompt that it answers; None where nobody asked, or where the last prompt before `a` is meant."""


@dataclass(kw_only=True)
class Question:
    """An offline question about the clip up to `t` (None: the whole clip)."""

    text: str
    answer: str
    kind: str
    """colour | kind | direction | free"""
    t: float | None = None
    choices: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Scenario:
    """One clip with prompts, truth and questions. `video` is a path relative to the scenario file."""

    id: str
    video: str
    fps: float
    """Frames a second at which frames are pushed."""
    num_frames: int
    prompts: list[PromptEvent] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    system: str = ""
    source: str = ""
    license: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


EVENT_KINDS = (
    "frame_in",
    "frame_done",
    "frame_dropped",
    "frame_rejected",
    "frame_during_speech",
    "prompt",
    "stop",
    "reset",
    "turn_start",
    "token",
    "silence",
    "turn_interrupted",
    "end",
)


@dataclass(kw_only=True)
class TraceEvent:
    """One thing that happened, at stream time `t` seconds."""

    t: float
    kind: str
    """One of `EVENT_KINDS`."""
    frame: int | None = None
    """Newest frame visible when a token was sampled, or the frame that the event is about."""
    token: int | None = None
    text: str = ""
    reason: str = ""
    step: int | None = None
    """Token boundary at which an arrival was taken: the step, counted from 0, that feeds it."""
    wall_t: float | None = None
    """Seconds since 1970; None on a virtual clock."""
    metrics: dict[str, Any] | None = None
    """Of the whole session, with the event `end`."""


@dataclass(kw_only=True)
class Trace:
    """All events of one run over one scenario, in order, and what produced them."""

    scenario_id: str
    mode: str
    """push | poll | offline"""
    events: list[TraceEvent] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """mode offline: one reply per question of the scenario."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Checkpoint, sampling settings, clock."""
