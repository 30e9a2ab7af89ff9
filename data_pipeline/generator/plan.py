"""What passes between the stages: a plan of questions, the actions of the answer policy, a judgement."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from data_pipeline.realtime.dialogue import UserTurn, Utterance
from data_pipeline.timeline.timeline import Timeline


@dataclass(frozen=True, kw_only=True)
class Question:
    """A turn of the user, as it is planned with the whole video in sight."""

    t: float
    """Second at which it is asked."""
    text: str
    behaviour: str
    """One of `data_pipeline.realtime.dialogue.BEHAVIOURS`."""
    subject: str = ""
    """Subject of the states that it is about; empty for events."""
    target: str = ""
    """What is waited for or counted, as a text or value of the timeline; known to the user, so to the policy too."""
    task: str = ""
    """What its words ask for: a key of `data_pipeline.generator.behaviours.policy.TASKS`. With `subject` and `target` it says
    what the text says; empty where the text alone counts, as with an author that is a model."""
    expected: str = "now"
    """now | later | never: when the answer becomes evident. For checks alone: the policy does not see it."""
    depends_on: tuple[str, ...] = ()
    """Ids of the changes that the answer rests on. For checks alone."""
    tolerance: float = 0.0
    """Seconds after the evidence at which the answer is still in time."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All that the user will say in one dialogue."""

    questions: tuple[Question, ...]
    """In order of time. An empty text at second 0 stands for a dialogue that nobody opens (narration)."""
    behaviours: tuple[str, ...]
    language: str = "en"


@dataclass(frozen=True, kw_only=True)
class Known:
    """All that the answer policy may look at when it decides at one frame."""

    t: float
    """Second of the frame."""
    frame: int
    timeline: Timeline
    """Truncated at `t`."""
    asked: tuple[Question, ...]
    """With a time before `t`, `expected` and `depends_on` taken away."""
    said: tuple[Utterance, ...]
    """What was decided at earlier frames."""
    frames: tuple[float, ...] = ()
    """Seconds of the frames so far; the last one is `t`."""
    language: str = "en"
    """Language of the dialogue: en | zh."""

    @property
    def previous(self) -> float:
        """Second of the frame before; minus infinity at the first one."""
        return self.frames[-2] if len(self.frames) > 1 else -math.inf


@dataclass(frozen=True, kw_only=True)
class Action:
    """What the policy decides at one frame: nothing is silence."""

    text: str
    evidence: tuple[float, float]
    answers: int | None = None
    """Index into `Known.asked`."""
    corrects: int | None = None
    """Index into `Known.said`."""
    kind: str = "event"
    """As `Utterance.kind`."""
    tolerance: float = 0.0
    replaces_running: bool = False


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A judge's marks of a dialogue, 0 to 4 each."""

    faithful: float
    timely: float
    complete: float
    redundant: float
    """4 means that nothing is said twice."""
    leak: bool
    """Whether an answer shows knowledge of what comes later."""
    reason: str = ""

    @property
    def score(self) -> float:
        """Mean of the four marks."""
        return (self.faithful + self.timely + self.complete + self.redundant) / 4


@dataclass(kw_only=True)
class Draft:
    """A dialogue before its layout, with the plan that the gates still need."""

    plan: Plan
    users: tuple[UserTurn, ...]
    utterances: tuple[Utterance, ...]
    quality: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """Why no dialogue came of a video."""

    stage: str
    """normalise | changes | plan | answer | style | judge"""
    reason: str
    behaviour: str = ""
    """The one that was tried; empty where several were."""
