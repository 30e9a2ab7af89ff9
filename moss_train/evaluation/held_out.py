"""Held-out loss: the stage's own objective on a fixed part of the validation sets."""

from __future__ import annotations

import sys
from typing import Any

from data_pipeline.loader import Loader, build_loader
from data_pipeline.packing.batch import PackedMicroBatch
from moss_train.feed.agreement import CommonError
from moss_train.feed.feed import Feed
from moss_train.setup import Session
from moss_train.statistics import StepStatistics


class HeldOut:
    """Evaluates the same micro-batches every time; they are read once and kept."""

    name = "held_out"

    def __init__(self, session: Session) -> None:
        self._session = session
        self._groups: list[list[PackedMicroBatch]] | None = None
        self._told = False

    @classmethod
    def make(cls, session: Session) -> HeldOut | None:
        """None where the run has no held-out data or does not want it used."""
        config = session.config
        return cls(session) if config.train.eval_batches > 0 and config.data.validation else None

    def due(self, step: int, last: bool) -> bool:
        """Before the first step, every `train.eval_every` steps, and after the last."""
        every = self._session.config.train.eval_every
        return last or step == 0 or bool(every and step % every == 0)

    def run(self, step: int) -> dict[str, Any]:
        """Evaluate; every rank calls it and gets the same record.

        Raises:
            CommonError: the validation sets cannot be read, or give nothing to evaluate on.
        """
        session = self._session
        if self._groups is None:
            batches, size = self._read(), session.micro_batches  # groups of one schedule each
            self._groups = [batches[begin : begin + size] for begin in range(0, len(batches), size)]
        if not self._groups:
            raise CommonError(
                f"data.validation gives too few micro-batches to evaluate on; look into {session.folder.quarantine} for samples "
                "left out, add samples, or set train.eval_batches to 0"
            )
        names = [dataset.name for dataset in session.config.data.validation]
        statistics = session.step.evaluate(self._groups, names)
        self._tell_unseen(statistics)
        record: dict[str, Any] = {"step": step, "eval_loss": statistics.loss, "eval_targets": statistics.targets}
        record |= {f"eval_loss_{name}": loss for name, loss in statistics.class_loss.items()}
        if statistics.dataset_loss:
            record["eval_dataset_loss"] = statistics.dataset_loss
            record["eval_dataset_targets"] = statistics.dataset_targets
            # A set of few targets counts as much as any other.
            record["eval_mean_dataset_loss"] = sum(statistics.dataset_loss.values()) / len(statistics.dataset_loss)
        if statistics.accuracy is not None:
            record["eval_accuracy"] = statistics.accuracy
        return record

    def _tell_unseen(self, statistics: StepStatistics) -> None:
        """Once: held-out sets of which nothing was evaluated, though others were."""
        unseen = [name for name, targets in statistics.dataset_targets.items() if not targets]
        if self._told or not unseen or self._session.layout.rank != 0:
            return
        self._told = True
        print(
            f"moss: the held-out evaluation sees nothing of {', '.join(unseen)}: the sets take turns, a micro-batch each, and "
            f"train.eval_batches is {self._session.config.train.eval_batches}; raise it, or check data.mixture and "
            f"{self._session.folder.quarantine}",
            file=sys.stderr,
            flush=True,
        )

    def _read(self) -> list[PackedMicroBatch]:
        """`train.eval_batches` micro-batches over all replicas, rounded up to equal shares."""
        session = self._session
        config, layout = session.config, session.layout

        def build() -> Loader:
            return build_loader(
                config.data,
                config.stage,
                session.model_config,
                session.tokenizer,
                rank=layout.place.data,
                world_size=layout.data_size,
                split="validation",
                ledger=session.folder.quarantine,
                cache=config.launcher.cache.folder or None,
            )

        names = [dataset.name for dataset in config.data.validation]
        feed = Feed(build, session.agreement, layout, names)
        # Interleaved stages take multiples of the pipeline size only.
        step = config.parallel.pipeline if config.parallel.virtual_pipeline > 1 else 1
        wanted = -(-config.train.eval_batches // (layout.data_size * step)) * step
        try:
            batches = feed.read(wanted, check=session.step.check).batches
        finally:
            feed.close()
        return batches[: len(batches) - len(batches) % step]
