"""One model, many scenarios, in lockstep; what goes wrong in one of them ends that one alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from data_pipeline.text.tokenizer import Tokenizer
from inference.engine import StepEngine, Stepping
from inference.evaluation.latency.profile import load_profile
from inference.evaluation.running.frames import EncodedFrames, check_media
from inference.evaluation.running.offline import offline_stepping, plan_questions
from inference.evaluation.running.poll import plan_polls, poll_stepping
from inference.evaluation.running.push import push_stepping
from inference.evaluation.running.settings import RunSettings, modes_of
from inference.evaluation.running.wall import run_in_real_time
from inference.evaluation.schema import Scenario, Trace
from model.errors import InputError

_ENDS_ONE = (InputError, torch.OutOfMemoryError)
"""What ends one scenario and lets the others go on."""

_Job = tuple[Scenario, str]
"""A scenario, and a mode in which it is run."""


class ScenarioRunner:
    """One model, many scenarios.

    Args:
        engine: the step engine.
        tokenizer: the checkpoint's own.
        folder: where the scenario file lies; videos are named relative to it.
        settings: modes, pace, sampling, limits.
        label: what the traces call the checkpoint.
        strict: a scenario that fails is raised instead of kept as a trace with its error.
    """

    def __init__(
        self,
        engine: StepEngine,
        tokenizer: Tokenizer,
        folder: Path,
        settings: RunSettings | None = None,
        label: str = "",
        *,
        strict: bool = False,
    ) -> None:
        self.engine, self.tokenizer, self.folder = engine, tokenizer, folder
        self.settings = settings or RunSettings()
        self.label, self.strict = label, strict
        path = self.settings.latency_profile
        self._profile = None if path is None else load_profile(path)

    def run(self, scenarios: Sequence[Scenario]) -> list[list[Trace]]:
        """The traces of each scenario, one for each mode that it is run in (`modes_of`).

        All scenarios run in lockstep, so that each pass of the model serves all of them: give as many as memory allows. A
        picture that several of them show is decoded and encoded once for all questions and polls.

        Raises:
            InputError: with `strict`, what went wrong in a scenario.
        """
        traces: dict[str, list[Trace]] = {scenario.id: [] for scenario in scenarios}
        jobs = [(scenario, mode) for scenario in scenarios for mode in modes_of(scenario, self.settings)]
        live = [job for job in jobs if job[1] == "push" and self.settings.clock == "wall"]
        # What took real time is kept, whatever becomes of the others.
        found = [self._in_real_time(scenario) for scenario, _ in live]
        for trace in [*found, *self._in_lockstep([job for job in jobs if job not in live])]:
            traces[trace.scenario_id].append(trace)
        return [traces[scenario.id] for scenario in scenarios]

    def _in_lockstep(self, jobs: Sequence[_Job]) -> list[Trace]:
        try:
            return self._drive(jobs)
        except _ENDS_ONE:
            if self.strict and len(jobs) == 1:
                raise
        # Something ended a step of all: alone each one shows whether it was at fault.
        return [self._alone(job) for job in jobs]

    def _drive(self, jobs: Sequence[_Job]) -> list[Trace]:
        bank = EncodedFrames(self.engine, self.folder)
        steppings = [self._guarded(scenario, mode, self._prepared(scenario, mode, bank)) for scenario, mode in jobs]
        bank.finish()
        return self.engine.drive(steppings)

    def _alone(self, job: _Job) -> Trace:
        try:
            return self._drive([job])[0]
        except _ENDS_ONE as error:
            if self.strict:
                raise
            return self._failed(*job, str(error))

    def _in_real_time(self, scenario: Scenario) -> Trace:
        """One stream, alone: others beside it would take its time."""
        try:
            check_media(scenario, self.folder)
            trace = run_in_real_time(self.engine, self.tokenizer, scenario, self.folder, self.settings)
        except _ENDS_ONE as error:
            if self.strict:
                raise
            return self._failed(scenario, "push", str(error))
        trace.engine = self._details() | trace.engine
        return trace

    def _prepared(self, scenario: Scenario, mode: str, bank: EncodedFrames) -> Callable[[], Stepping[Trace]] | InputError:
        """What runs a scenario once its pictures are decoded, or why it cannot be run."""
        try:
            check_media(scenario, self.folder)
            return self._maker(scenario, mode, bank)
        except InputError as error:
            return error

    def _maker(self, scenario: Scenario, mode: str, bank: EncodedFrames) -> Callable[[], Stepping[Trace]]:
        engine, tokenizer, settings = self.engine, self.tokenizer, self.settings
        positions = engine.model.config.text.max_position_embeddings
        if mode == "push":
            return lambda: push_stepping(engine, tokenizer, scenario, self.folder, settings, self._profile)
        if mode == "teacher":
            from inference.evaluation.teacher import teacher_stepping

            bank.want(scenario, range(scenario.num_frames))
            return lambda: teacher_stepping(engine, tokenizer, scenario, bank, settings)
        if mode == "poll":
            moments = plan_polls(scenario, tokenizer, settings, positions)
            bank.want(scenario, {number for moment in moments for number in moment.frames})
            return lambda: poll_stepping(engine, tokenizer, scenario, moments, bank, settings)
        plan = plan_questions(scenario, tokenizer, settings, positions)
        bank.want(scenario, {number for asked in plan for number in asked.frames})
        return lambda: offline_stepping(engine, tokenizer, scenario, plan, bank, settings)

    def _guarded(self, scenario: Scenario, mode: str, make: Callable[[], Stepping[Trace]] | InputError) -> Stepping[Trace]:
        """The scenario's stepping, whose end is always a trace."""
        try:
            if isinstance(make, InputError):
                raise make
            trace = yield from make()
        except InputError as error:
            if self.strict:
                raise
            return self._failed(scenario, mode, str(error))
        trace.engine = self._details() | trace.engine
        return trace

    def _failed(self, scenario: Scenario, mode: str, why: str) -> Trace:
        answers = [""] * len(scenario.questions) if mode == "offline" else []
        return Trace(scenario_id=scenario.id, mode=mode, answers=answers, engine=self._details(), error=why)

    def _details(self) -> dict[str, Any]:
        return {"checkpoint": self.label, **dataclasses.asdict(self.settings)}
