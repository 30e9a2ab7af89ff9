"""How scenarios are run."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from inference.evaluation.schema import MODES, Scenario
from inference.sampling import SamplingConfig
from model.errors import InputError

CLOCKS = ("virtual", "wall")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How scenarios are run. Everything here is written into each trace.

    Raises:
        InputError: a value out of range.
    """

    tokens_per_frame: int | None = 16
    """Tokens that the model can say between two frames: the pace. None: as many as the clock leaves time for."""
    max_answer_tokens: int = 32
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    modes: tuple[str, ...] = ()
    """Of `MODES`; empty: push where something is streamed, offline where questions are asked, poll where there are polls."""
    context_seconds: float | None = None
    """Clips of questions and polls reach back so far; None: to the question's own `since`, or to the first frame."""
    max_frames: int | None = None
    """Most frames of such a clip; of a longer one evenly spaced frames are shown."""
    clock: str = "virtual"
    """virtual: computing takes no time, or the time of a latency profile. wall: frames come in real time."""
    latency_profile: str | None = None
    """File whose measured times a virtual clock re-injects."""

    def __post_init__(self) -> None:
        for name in ("tokens_per_frame", "max_answer_tokens", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; it must be at least 1")
        for mode in self.modes:
            if mode not in MODES:
                raise InputError(f"modes holds {mode!r}; use some of {', '.join(MODES)}")
        if self.context_seconds is not None and not self.context_seconds > 0:
            raise InputError(f"context_seconds is {self.context_seconds}; it must be above 0")
        if self.clock not in CLOCKS:
            raise InputError(f"clock is {self.clock!r}; use virtual or wall")
        if self.tokens_per_frame is None and self.clock == "virtual" and self.latency_profile is None:
            raise InputError(
                "tokens_per_frame is None on a virtual clock, where speaking takes no time; give it, or a latency profile"
            )
        if self.clock == "wall" and self.latency_profile is not None:
            raise InputError("a latency profile is for the virtual clock: the wall clock has its own times; give one of the two")


def needs_push(scenario: Scenario) -> bool:
    """Whether a scenario is streamed: all are, except those that only ask."""
    return bool(scenario.spans or scenario.prompts or not (scenario.questions or scenario.polls))


def modes_of(scenario: Scenario, settings: RunSettings) -> list[str]:
    """In which modes a scenario is run; of those that the settings name, the ones that it has something for."""
    fits = {
        "push": needs_push(scenario),
        "offline": bool(scenario.questions),
        "poll": bool(scenario.polls),
        "teacher": any(span.text for span in scenario.spans),
    }
    wanted = settings.modes or ("push", "offline", "poll")
    return [mode for mode in MODES if mode in wanted and fits[mode]]
