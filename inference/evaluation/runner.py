"""Runs scenarios against a model: questions about whole clips, and streams on a virtual clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from data_pipeline.media.decode import frames_at
from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine, Stepping
from inference.evaluation.schema import Scenario, Trace
from inference.offline import Answerer, question_rows
from inference.sampling import SamplingConfig
from inference.session.arrivals import Arrival, merge
from inference.session.clock import VirtualClock
from inference.session.inbox import Inbox
from inference.session.loop import RealtimeSession
from inference.session.settings import SessionSettings


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How scenarios are run. Everything here is written into each trace."""

    tokens_per_frame: int = 16
    """Tokens that the model can say between two frames: the pace on the virtual clock."""
    max_answer_tokens: int = 32
    sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)


def needs_push(scenario: Scenario) -> bool:
    """Whether a scenario is streamed: all are, except those that only ask questions."""
    return bool(scenario.spans or scenario.prompts or not scenario.questions)


class ScenarioRunner:
    """One model, many scenarios.

    Args:
        engine: the step engine.
        tokenizer: the checkpoint's own.
        folder: where the scenario file lies; videos are named relative to it.
        settings: pace, sampling, limits.
        label: what the traces call the checkpoint.
    """

    def __init__(
        self, engine: StepEngine, tokenizer: Tokenizer, folder: Path, settings: RunSettings | None = None, label: str = ""
    ) -> None:
        self.engine, self.tokenizer, self.folder = engine, tokenizer, folder
        self.settings = settings or RunSettings()
        self.label = label

    def run(self, scenarios: Sequence[Scenario]) -> list[list[Trace]]:
        """The traces of each scenario: `push` where it is streamed, `offline` where it asks questions.

        All scenarios run in lockstep, so that each pass of the model serves all of them: give as many as memory allows.

        Raises:
            InputError: a video is missing or damaged, or shorter than its scenario says.
        """
        steppings = [stepping for scenario in scenarios for stepping in self._steppings(scenario)]
        traces: dict[str, list[Trace]] = {scenario.id: [] for scenario in scenarios}
        for trace in self.engine.drive(steppings):
            traces[trace.scenario_id].append(trace)
        return [traces[scenario.id] for scenario in scenarios]

    def _steppings(self, scenario: Scenario) -> Iterator[Stepping[Trace]]:
        times = [i / scenario.fps for i in range(scenario.num_frames)]
        path = self.folder / scenario.video
        frames = frames_at(path, times, self.engine.model.config.vision.image_size, f"{path} of scenario {scenario.id}")
        if needs_push(scenario):
            yield self._push(scenario, frames, times)
        if scenario.questions:
            yield self._offline(scenario, frames, times)

    def _push(self, scenario: Scenario, frames: torch.Tensor, times: Sequence[float]) -> Stepping[Trace]:
        prompts = (Arrival(t=p.t, prompt=p.text) for p in sorted(scenario.prompts, key=lambda p: p.t))
        arrivals = (Arrival(t=t, frame=frame) for t, frame in zip(times, frames, strict=True))
        pace = self.settings.tokens_per_frame * scenario.fps
        session = RealtimeSession(
            self.engine,
            self.tokenizer,
            Inbox(merge(prompts, arrivals)),
            VirtualClock(),
            SessionSettings(system=scenario.system, sampling=self.settings.sampling, tokens_per_second=pace),
        )
        # The last frame has its full slot, as every other.
        yield from session.stepping(until=scenario.num_frames / scenario.fps)
        details = self._details() | {"clock": "virtual", "frames": session.ledger.as_dict(), "end": session.end_reason}
        details["session"] = session.describe()
        return Trace(scenario_id=scenario.id, mode="push", events=session.events, engine=details)

    def _offline(self, scenario: Scenario, frames: torch.Tensor, times: Sequence[float]) -> Stepping[Trace]:
        answerer = Answerer(
            self.engine, self.tokenizer, sampling=self.settings.sampling, max_new_tokens=self.settings.max_answer_tokens
        )
        answers = [""] * len(scenario.questions)
        for count, members in _by_frames(scenario, times):
            prompts = [question_rows(scenario.questions[i].text, count, self.tokenizer, system=scenario.system) for i in members]
            replies = yield from answerer.stepping(prompts, frames[:count])
            for i, reply in zip(members, replies, strict=True):
                answers[i] = self.tokenizer.decode(reply, skip_special=True).strip()
        return Trace(scenario_id=scenario.id, mode="offline", answers=answers, engine=self._details())

    def _details(self) -> dict[str, Any]:
        return {"checkpoint": self.label, **dataclasses.asdict(self.settings)}


def _by_frames(scenario: Scenario, times: Sequence[float]) -> Iterator[tuple[int, list[int]]]:
    """(number of frames, questions about exactly those), so that one encoding serves them all."""
    groups: dict[int, list[int]] = {}
    for i, question in enumerate(scenario.questions):
        count = len(times) if question.t is None else max(1, sum(t <= question.t + 1e-6 for t in times))
        groups.setdefault(count, []).append(i)
    yield from groups.items()
