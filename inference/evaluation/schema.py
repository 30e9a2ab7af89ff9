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
    meta: dict[str, Any] = field(default_factory=dict)
    """What only its suite reads."""


@dataclass(kw_only=True)
class Change:
    """At `t` seconds something stops being true and something else begins to be."""

    t: float
    before: str = ""
    """A statement that is true until then and wrong afterwards."""
    after: str = ""
    """The statement that is true from then on."""
    kind: str = "change"


@dataclass(kw_only=True)
class Poll:
    """One question that is asked again and again, each time of the clip that ends at that moment, until the reply says yes.

    The way in which benchmarks ask models that cannot decide by themselves when to speak.
    """

    text: str
    begin: float
    """Stream time in seconds of the first asking."""
    end: float
    """Of the last at the latest."""
    step: float = 1.0
    """Seconds between two."""
    stop: str = "yes"
    """Asking ends at the first reply whose first word this is, in any case; empty: never."""
    then: str = ""
    """Asked once, of the same clip, where asking ended; empty: nothing."""
    prompt: int | None = None
    """Index of the prompt that asks for the same in push mode."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What only its suite reads."""


@dataclass(kw_only=True)
class Question:
    """An offline question about the clip up to `t` (None: the whole clip)."""

    text: str
    answer: str
    kind: str
    """colour | kind | direction | free, or the task of a benchmark; scores are split by it."""
    t: float | None = None
    """Where the clip ends, in seconds of the stream."""
    choices: list[str] = field(default_factory=list)
    """Texts of the options A, B, …; `text` holds them already, as the model reads them."""
    since: float | None = None
    """Where the clip begins; None: at the first frame."""
    after: list[int] = field(default_factory=list)
    """Earlier questions of the scenario that are put before this one, each with its true answer, as turns of one dialogue."""
    meta: dict[str, Any] = field(default_factory=dict)
    """What only its suite reads."""


@dataclass(kw_only=True)
class Scenario:
    """One clip with prompts, truth and questions. Its pixels are a video or one image for each frame; paths are relative to the
    scenario file."""

    id: str
    fps: float
    """Frames a second at which frames are pushed."""
    num_frames: int
    video: str = ""
    frames: list[str] = field(default_factory=list)
    """Image files instead of a video, `num_frames` of them."""
    begin: float = 0.0
    """Second of the video at which the stream begins: frame i is what the video shows at begin + i / fps."""
    prompts: list[PromptEvent] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    polls: list[Poll] = field(default_factory=list)
    suite: str = ""
    """Name of the suite that scores it (`inference.evaluation.suites`); empty: the world's own scores."""
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


MODES = ("push", "poll", "offline", "teacher")
"""push: frames and prompts arrive, the model speaks when it wants. poll: asked again and again. offline: questions about clips.
teacher: the true dialogue is fed, and the model's probabilities of it are recorded."""


@dataclass(kw_only=True)
class PollReply:
    """What was said to one asking of a poll."""

    t: float
    """Stream time in seconds at which the clip ended."""
    text: str


@dataclass(kw_only=True)
class PollRound:
    """All askings of one poll."""

    poll: int
    """Index among the scenario's polls."""
    replies: list[PollReply] = field(default_factory=list)
    stopped: bool = False
    """Whether the last reply ended it."""
    final: str = ""
    """The reply to the poll's `then`."""


@dataclass(kw_only=True)
class FrameDecision:
    """Speak or stay silent, as the model would have decided after one frame."""

    silence: float
    """Probability of the silence token."""
    silent: bool
    """Whether a session would have stayed silent: silence is the likeliest token, or one that a session takes for silence."""


@dataclass(kw_only=True)
class TeacherTurn:
    """One turn of the true dialogue under teacher forcing."""

    span: int
    """Index of the scenario's span whose text the turn says."""
    losses: list[float] = field(default_factory=list)
    """Cross-entropy in nats of each token of the text."""
    correct: list[bool] = field(default_factory=list)
    """Whether the token was the likeliest one, token by token."""
    frames: list[FrameDecision] = field(default_factory=list)
    """After each frame of the turn; at the last of them speaking is right."""
    later: list[FrameDecision] = field(default_factory=list)
    """After frames of the next turn that are fed as if the text had not been said, until the model speaks or they end."""


@dataclass(kw_only=True)
class Trace:
    """All events of one run over one scenario, in order, and what produced them."""

    scenario_id: str
    mode: str
    """One of `MODES`."""
    events: list[TraceEvent] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    """mode offline: one reply per question of the scenario."""
    polls: list[PollRound] = field(default_factory=list)
    """mode poll: one for each poll of the scenario."""
    turns: list[TeacherTurn] = field(default_factory=list)
    """mode teacher: one for each span with a text, in the order of time."""
    usage: dict[str, Any] = field(default_factory=dict)
    """What the model was given: `frames`, `visual_tokens` and `text_tokens`, each summed over all that was asked."""
    error: str = ""
    """Why the run of this scenario ended early; its scores count what is there."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Checkpoint, sampling settings, clock."""
