"""The training loop: data, step, update, monitors, evaluations, checkpoints. What it drives lives elsewhere."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from model.errors import InputError
from moss_train.checkpoint.checkpointer import Checkpointer
from moss_train.config.schema import RunConfig
from moss_train.engines.optimizer.modules import ModuleRates
from moss_train.evaluation.base import Evaluator, MakeEvaluator
from moss_train.evaluation.held_out import HeldOut
from moss_train.feed.agreement import CommonError
from moss_train.feed.feed import Delivery
from moss_train.guards.anomaly import AnomalyWriter
from moss_train.guards.policy import Action, Guard
from moss_train.guards.rewind import rewind
from moss_train.guards.stop_signal import StopSignal, outlast_signals
from moss_train.monitors.base import Monitor, SaveEvent, Update
from moss_train.monitors.build import make_monitors
from moss_train.phases import mark
from moss_train.record import Recorder
from moss_train.schedule import stage_rates
from moss_train.setup import Session, start_session
from moss_train.signals import Signals

EVALUATED = "evaluated"
"""Name in a checkpoint, beside those of monitors, of the step of each evaluator's newest evaluation."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    step: int
    """Steps done."""
    finished: bool
    """False where a signal, or the end of the data, ended the run before its last step."""
    checkpoint: Path | None
    data_ended: bool = False
    """Whether the data were the reason."""


def train(config: RunConfig, evaluators: Sequence[MakeEvaluator] = ()) -> Outcome:
    """Run or continue one stage on this rank; all ranks call it.

    Args:
        evaluators: make what is evaluated in the loop beside the held-out loss.

    Raises:
        InputError: whatever a user can put right, before or while training.
    """
    session = start_session(config)
    outcome = Trainer(session, evaluators).run()
    session.watch.stop()
    return outcome


class Trainer:
    """Drives a session to its last step."""

    def __init__(self, session: Session, evaluators: Sequence[MakeEvaluator] = ()) -> None:
        config, resumed = session.config, session.resumed
        self._session = session
        self._position = session.watch.position
        phases = session.step.phases  # alone: the watch outlives the session
        self._position.part = lambda: phases.current
        self._stop = StopSignal(config.guard.stop_seconds, session.watch.tell_and_say)
        self._guard = Guard(config.guard, AnomalyWriter(session, config.guard.keep_anomalies))
        self._monitors: list[Monitor] = [self._stop, self._guard, *make_monitors(session)]
        self._checkpointer = Checkpointer(session)
        self._recorder = Recorder(session)
        made = [make(session) for make in (HeldOut.make, *evaluators)]
        self._evaluators: list[Evaluator] = [evaluator for evaluator in made if evaluator is not None]
        self._evaluated: dict[str, int] = {} if resumed is None else dict(resumed.monitors.get(EVALUATED, {}))
        self._steps = config.train.steps
        self._step = 0 if resumed is None else resumed.step
        for monitor in self._monitors:
            if resumed is not None and monitor.name in resumed.monitors:
                monitor.load_state_dict(resumed.monitors[monitor.name])
        self._rates = stage_rates(config.stage, self._steps)
        self._module_rates = ModuleRates(config.optimizer, session.model_config)

    def run(self) -> Outcome:
        """Train to the last step, to the end of the data, or until a signal asks to end."""
        try:
            for monitor in self._monitors:
                monitor.started(self._step, self._steps)
            finished, data_ended = self._loop()
            if self._session.resumed is None or self._session.resumed.step < self._step:
                self._save()
            self._position.at("checkpoint", self._step)
            self._tell(self._checkpointer.finish())
        except InputError as error:
            if isinstance(error, CommonError) or self._session.layout.world_size == 1:
                self._position.at("checkpoint", self._step)
                self._tell(self._checkpointer.wait())  # all ranks are here: what is being written was good
            raise
        except Exception:
            outlast_signals()
            raise
        finally:
            self._position.rest()
            for monitor in self._monitors:
                monitor.finished()
            self._session.feed.close()
        return Outcome(self._step, finished, self._checkpointer.newest, data_ended)

    def _loop(self) -> tuple[bool, bool]:
        """Whether all steps were done, and whether the data ended before."""
        if self._step == 0 or self._step < self._steps:
            self._evaluate()  # before the first step, or what a signal to end left out behind the last one
        while self._step < self._steps:
            signals = self._one_step()
            if signals is None:
                self._evaluate(last=True)
                return False, True
            if signals.stop and self._step < self._steps:
                return False, False
            self._between_steps(signals)
        return True, False

    def _one_step(self) -> Signals | None:
        """One step; None where the data do not give all micro-batches of it."""
        session, begin = self._session, time.perf_counter()
        step = self._step + 1
        self._position.at("data", step)
        for monitor in self._monitors:
            monitor.begun(step)
        with mark("feed"):
            data = session.feed.read(session.micro_batches, step, session.step.check, more=step < self._steps)
        if len(data.batches) < session.micro_batches:
            self._check_end()
            return None
        self._position.at("step", step)
        update = self._update(step, data)
        self._position.at("after the step", step)
        self._step = step
        session.counts.add(data.samples)
        update.seconds = time.perf_counter() - begin
        update.phases = session.step.phases.take()
        record = self._recorder.record(update)
        with mark("monitors"):
            for monitor in self._monitors:
                record |= monitor.measured(update)
        for monitor in self._monitors:
            monitor.stepped(record)
        return update.statistics.signals

    def _update(self, step: int, data: Delivery) -> Update:
        """Gradients, judgement, and the change of the weights."""
        session = self._session
        own = self._stop.signals() + self._checkpointer.signals()
        statistics = session.step.accumulate(data.batches, own)
        rates = {part: rate(step - 1) for part, rate in self._rates.items()}
        session.optimization.set_learning_rates(rates["decoder"], rates["vision"])
        rates = self._module_rates.learning_rates(rates["decoder"], rates["vision"])
        with session.step.phases("optimizer"):
            norm = session.optimization.prepare()
        update = Update(step, data, statistics, norm, rates)
        for monitor in self._monitors:
            monitor.prepared(update)
        action = self._guard.judge(update)
        update.applied = action is Action.APPLY
        if update.applied:
            with session.step.phases("optimizer"):
                session.optimization.apply()
        elif action is Action.REWIND:
            update.rewound_to = self._rewind(step)
        return update

    def _rewind(self, step: int) -> int:
        self._position.at("checkpoint", step)
        self._tell(self._checkpointer.wait())
        return rewind(self._session, self._checkpointer.newest, f"{self._guard.reason} in step {step}")

    def _check_end(self) -> None:
        """The end of the data is no mistake, unless there was nothing in them."""
        if self._step == 0:
            raise CommonError(
                "the training data ended before the first step: the datasets of data.datasets give fewer micro-batches than "
                f"train.global_batch_size = {self._session.config.train.global_batch_size}; look into "
                f"{self._session.folder.quarantine} for samples left out, or raise repeats or max_samples of a dataset"
            )

    def _between_steps(self, signals: Signals) -> None:
        self._tell(self._checkpointer.poll(signals))
        last, every = self._step == self._steps, self._session.config.train.save_every
        self._evaluate(last)
        wanted = any(monitor.wants_save(self._step) for monitor in self._monitors)
        if not last and (signals.save or wanted or (every and self._step % every == 0)):
            self._save()

    def _evaluate(self, last: bool = False) -> None:
        for evaluator in self._evaluators:
            if evaluator.due(self._step, last) and self._evaluated.get(evaluator.name) != self._step:
                self._evaluated[evaluator.name] = self._step
                self._position.at("evaluation", self._step)
                with mark("evaluate"):
                    record = evaluator.run(self._step)
                for monitor in self._monitors:
                    monitor.evaluated(record)

    def _save(self) -> None:
        self._position.at("checkpoint", self._step)
        states = {monitor.name: state for monitor in self._monitors if (state := monitor.state_dict()) is not None}
        states[EVALUATED] = dict(self._evaluated)
        with mark("save"):
            events = self._checkpointer.begin(self._step, states)
        self._tell(events)

    def _tell(self, events: Iterable[SaveEvent]) -> None:
        for event in events:
            for monitor in self._monitors:
                monitor.saved(event)
