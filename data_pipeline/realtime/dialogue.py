"""A timed dialogue: turns of the user and utterances of the assistant, each with the evidence that it rests on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BEHAVIOURS = (
    "narrate",
    "direct",
    "delayed",
    "silence_only",
    "correction",
    "interruption",
    "retraction",
    "repeat",
    "count",
    "alert",
    "several_turns",
    "not_yet",
)
"""What a dialogue can teach; a row names those that it holds."""


@dataclass(frozen=True, kw_only=True)
class UserTurn:
    """Something the user says."""

    t: float
    """Second at which it arrives: after every frame with an earlier or equal time, before the next one."""
    text: str
    behaviour: str = ""
    """One of `BEHAVIOURS`."""


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """Something the assistant has to say, and, once it is laid out, what of it was said when."""

    t: float
    """Second from which on saying it is right: the time of the first frame at which the evidence can be seen (and the question
    has been asked). It lies on the grid of frames."""
    text: str
    evidence: tuple[float, float]
    """Seconds of the video that show it; the second one is at most `t`."""
    answers: int | None = None
    """Index of the user turn that it answers; None for what nobody asked for."""
    corrects: int | None = None
    """Index of the earlier utterance that it replaces."""
    tolerance: float = 0.0
    """Seconds after `t` at which beginning to say it is still right."""
    kind: str = "event"
    """event | answer | correction | count | alert | not_yet | narration"""
    replaces_running: bool = False
    """Whether it cuts off an utterance that is still being said, instead of waiting for its end."""
    span: tuple[float, float] | None = None
    """Times of the first and the last frame in whose slots it is said; None before the layout and for what was never said."""
    said: str | None = None
    """What was said of it: all of `text`, or what came before it was cut off."""
    preempted: bool = False
    """Whether it was cut off."""


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """One row of a corpus: everything but the pixels."""

    id: str
    frame_times: tuple[float, ...]
    """Seconds of the frames that are shown, rising."""
    fps: float
    users: tuple[UserTurn, ...] = ()
    """In order of time."""
    utterances: tuple[Utterance, ...] = ()
    """In order of `t`."""
    emission_tps: float | None = None
    """Tokens a second at which the assistant speaks; None before the layout."""
    behaviours: tuple[str, ...] = ()
    language: str = "en"
    system: str = ""
    video: str = ""
    """Path of the file, or empty where it is made from a seed."""
    source: str = ""
    license: str = ""
    split_key: str = ""
    timeline: str = ""
    """Id of the timeline that it was made from."""
    generator: dict[str, Any] = field(default_factory=dict)
    """How it was made: version, model, digest of the prompts, seed."""
    quality: dict[str, Any] = field(default_factory=dict)
    """What judges and gates found."""
    meta: dict[str, Any] = field(default_factory=dict)
