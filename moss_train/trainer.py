"""The training loop: data, step, update, monitors, evaluation, checkpoints. What it drives lives elsewhere."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from moss_train.checkpoint.save import save_checkpoint, save_model_only
from moss_train.config.schema import RunConfig
from moss_train.evaluation import HeldOut
from moss_train.feed.agreement import CommonError
from moss_train.feed.feed import Delivery
from moss_train.feed.left_out import LeftOut
from moss_train.monitors.base import Monitor
from moss_train.monitors.guard import NanGuard
from moss_train.monitors.metrics_file import MetricsFile
from moss_train.monitors.progress import ProgressBar
from moss_train.monitors.stop_signal import StopSignal
from moss_train.monitors.wandb_log import WandbLog
from moss_train.schedule import LearningRate
from moss_train.setup import Session, start_session
from moss_train.statistics import StepStatistics


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `train` ended."""

    step: int
    """Updates done."""
    finished: bool
    """False where a signal, or the end of the data, ended the run before its last step."""
    checkpoint: Path | None
    data_ended: bool = False
    """Whether the data were the reason."""


def train(config: RunConfig) -> Outcome:
    """Run or continue one stage on this rank; all ranks call it.

    Raises:
        InputError: whatever a user can put right, before or while training.
    """
    return Trainer(start_session(config)).run()


class Trainer:
    """Drives a session to its last step."""

    def __init__(self, session: Session) -> None:
        config = session.config
        self._session = session
        self._held_out = HeldOut(session)
        self._stop = StopSignal()
        self._monitors = self._make_monitors()
        self._step = 0 if session.resumed is None else session.resumed.step
        stage = config.stage
        self._rate, self._vision_rate = (
            LearningRate(stage.schedule, peak, min(stage.min_learning_rate, peak), stage.warmup_ratio, config.train.steps)
            for peak in (
                stage.learning_rate,
                stage.learning_rate if stage.vision_learning_rate is None else stage.vision_learning_rate,
            )
        )
        self._saved: tuple[int, Path] | None = None
        self._evaluated: int | None = None
        self._left_out = LeftOut(session.folder.quarantine)

    def run(self) -> Outcome:
        """Train to the last step, to the end of the data, or until a signal asks to end."""
        config = self._session.config.train
        finished, data_ended = True, False
        try:
            for monitor in self._monitors:
                monitor.started(self._step, config.steps)
            if self._step == 0:
                self._evaluate()
            while self._step < config.steps:
                update = self._update()
                if update is None:
                    finished, data_ended = False, True
                    self._evaluate()
                    break
                record, stop = update
                for monitor in self._monitors:
                    monitor.stepped(record)
                if stop and self._step < config.steps:
                    finished = False
                    break
                self._between_steps()
            if self._session.resumed is None or self._session.resumed.step < self._step:
                self._save()
        finally:
            for monitor in self._monitors:
                monitor.finished()
            self._session.feed.close()
        checkpoint = self._saved[1] if self._saved else self._session.folder.newest
        return Outcome(self._step, finished, checkpoint, data_ended)

    def _update(self) -> tuple[dict[str, Any], bool] | None:
        """One update; None where the data do not give all micro-batches of it."""
        session = self._session
        begin = time.perf_counter()
        step = self._step + 1
        data = session.feed.read(session.micro_batches, step, session.step.check, more=step < session.config.train.steps)
        if len(data.batches) < session.micro_batches:
            self._check_end()
            return None
        statistics = session.step.accumulate(data.batches, self._stop.requested)
        rates = self._rate(self._step), self._vision_rate(self._step)
        session.optimization.set_learning_rates(*rates)
        norm = session.optimization.update()
        self._step += 1
        session.counts.add(data.samples)
        return self._record(data, statistics, rates, norm, time.perf_counter() - begin), statistics.stop

    def _check_end(self) -> None:
        """The end of the data is no mistake, unless there was nothing in them."""
        if self._step == 0:
            raise CommonError(
                "the training data ended before the first step: the datasets of data.datasets give fewer micro-batches than "
                f"train.global_batch_size = {self._session.config.train.global_batch_size}; look into "
                f"{self._session.folder.quarantine} for samples left out, or raise repeats or max_samples of a dataset"
            )

    def _record(
        self, data: Delivery, statistics: StepStatistics, rates: tuple[float, float], norm: float, seconds: float
    ) -> dict[str, Any]:
        record: dict[str, Any] = {"step": self._step, "loss": statistics.loss}
        record |= {f"loss_{name}": loss for name, loss in statistics.class_loss.items()}
        if statistics.dataset_loss:
            record["dataset_loss"] = statistics.dataset_loss
        if statistics.accuracy is not None:
            record["accuracy"] = statistics.accuracy
        if left_out := self._left_out.counts():
            record["left_out"] = left_out
        record |= self._session.counts.record()
        return record | {
            "grad_norm": norm,
            "learning_rate": rates[0],
            "vision_learning_rate": rates[1],
            "targets": statistics.targets,
            "tokens": statistics.tokens,
            "frames": statistics.frames,
            "frames_encoded_here": statistics.encoded_by_rank[self._session.layout.rank],
            "padding": 1.0 - data.real_rows / data.rows,
            "seconds": seconds,
            "data_seconds": data.data_seconds,
            "feed_seconds": data.feed_seconds,
            "tokens_per_second": statistics.tokens / seconds,
            "frames_per_second": statistics.frames / seconds,
        }

    def _between_steps(self) -> None:
        config = self._session.config.train
        last = self._step == config.steps
        if last or (config.eval_every and self._step % config.eval_every == 0):
            self._evaluate()
        if config.save_every and self._step % config.save_every == 0 and not last:
            self._save()

    def _evaluate(self) -> None:
        if not self._held_out.enabled or self._evaluated == self._step:
            return
        self._evaluated = self._step
        record = self._held_out.run(self._step)
        for monitor in self._monitors:
            monitor.evaluated(record)

    def _save(self) -> None:
        session = self._session
        if self._saved is not None and self._saved[0] == self._step:
            return
        if self._step == 0:  # a run of no steps: there is no optimizer state yet
            path = save_model_only(
                session.folder.path,
                session.models.chunks,
                session.models.vision,
                session.model_config,
                stage=dataclasses.asdict(session.config.stage),
                lora=session.describe(0).lora,
            )
        else:
            path = save_checkpoint(
                session.folder.path,
                session.describe(self._step),
                session.models.chunks,
                session.models.unit,
                session.optimization,
                session.layout,
                loader_state=session.feed.state_dict(),
                keep_last=session.config.train.keep_last,
            )
        self._saved = (self._step, path)

    def _make_monitors(self) -> list[Monitor]:
        """The guard and the signal on every rank; what writes or prints on the first only."""
        session = self._session
        logging = session.config.logging
        monitors: list[Monitor] = [self._stop, NanGuard()]
        if session.layout.rank == 0:
            # The guard comes first: a step whose loss is no number is not written as a result.
            monitors.append(MetricsFile(session.folder.metrics, session.config.train.log_every))
            if logging.progress:
                monitors.append(ProgressBar(session.config.stage.name))
            if logging.wandb != "disabled":
                name = f"{session.config.stage.name}-{session.folder.path.name}"
                values = dataclasses.asdict(session.config)
                monitors.append(WandbLog(session.folder.wandb, logging.wandb_project, name, logging.wandb, values))
        return monitors
