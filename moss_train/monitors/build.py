"""The monitors of a run on this rank."""

from __future__ import annotations

import dataclasses

from moss_train.evaluation.best import BestCheckpoint
from moss_train.monitors.base import Monitor
from moss_train.monitors.metrics_file import MetricsFile
from moss_train.monitors.profiler import Profiler
from moss_train.monitors.progress import ProgressBar
from moss_train.monitors.wandb_log import WandbLog
from moss_train.setup import Session


def make_monitors(session: Session) -> list[Monitor]:
    """In the order in which they are told; what writes or prints comes after what measures, on the first rank only."""
    config, folder = session.config, session.folder
    logging = config.logging
    monitors: list[Monitor] = []
    if profiler := Profiler.make(
        config.profile, folder.path, session.layout.rank, session.layout.world_size, session.layout.device
    ):
        monitors.append(profiler)
    if config.evaluation.best is not None:
        first = session.layout.rank == 0
        monitors.append(BestCheckpoint(config.evaluation, folder.path, first, session.agreement.from_first))
    if session.layout.rank != 0:
        return monitors
    monitors.append(MetricsFile(folder.metrics, config.train.log_every))
    if logging.progress:
        monitors.append(ProgressBar(config.stage.name))
    if logging.wandb != "disabled":
        name = f"{config.stage.name}-{folder.path.name}"
        monitors.append(WandbLog(folder.wandb, logging.wandb_project, name, logging.wandb, dataclasses.asdict(config)))
    return monitors
