"""Run on ranks: what the trainer itself sends in a step of a real run, beside what the plan says of its configuration.

Usage: trainer_ranks CONFIG.yaml...
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import sys
from typing import Any

from moss_train import platform

platform.install()

import torch.distributed as dist

from moss_train.config.compose import load_config
from moss_train.feed.feed import Delivery
from moss_train.feed.wire import pack_rows
from moss_train.monitors.base import Update
from moss_train.parallel.layout import stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.planning.communication.counted import Counter, names_of_groups
from moss_train.planning.communication.shape import StepShape
from moss_train.planning.communication.step import step_traffic
from moss_train.platform.device import resolve_device
from moss_train.setup import Session, start_session
from moss_train.signals import Signals
from moss_train.trainer import Trainer
from moss_train.verify.communication.trial import shapes_of


class CountedTrainer(Trainer):
    """Counts its second step."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.counter = Counter(names_of_groups(session.layout, session.agreement))
        self.data: Delivery | None = None

    def _one_step(self) -> Signals | None:
        if self._step != 1:
            return super()._one_step()
        with self.counter:
            return super()._one_step()

    def _update(self, step: int, data: Delivery) -> Update:
        self.data = data if step == 2 else self.data
        return super()._update(step, data)


def main(*configs: str) -> None:
    """One line for each run, once all ranks agree."""
    start_world(resolve_device("cpu"))
    for path in configs:
        session = start_session(load_config(path))
        trainer, layout, config = CountedTrainer(session), session.layout, session.config
        trainer.run()
        session.watch.stop()
        assert trainer.data is not None
        own = shapes_of(trainer.data.batches, config.parallel), len(pack_rows(trainer.data.batches))
        everyone: list[Any] = [None] * layout.world_size
        dist.all_gather_object(everyone, own)
        readers = [everyone[rank] for rank in session.agreement.readers]
        shape = StepShape(tuple(packs for packs, _ in readers), len(config.data.datasets), tuple(length for _, length in readers))
        planned = step_traffic(config, layout.world_size, shape, layout.rank)
        assert trainer.counter.traffic.as_json() == planned.as_json(), (trainer.counter.traffic.as_json(), planned.as_json())
        if layout.rank == 0:
            print(f"{path}: {len(planned.as_json())} kinds agree", flush=True)
        stop_layout()
    stop_world()


if __name__ == "__main__":
    main(*sys.argv[1:])
