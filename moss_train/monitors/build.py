"""The monitors of a run on this rank."""

from __future__ import annotations

import dataclasses

import torch

from moss_train.engines.deepspeed.optimization import DeepSpeedOptimization
from moss_train.evaluation.best import BestCheckpoint
from moss_train.feed.left_out import LeftOut
from moss_train.guards.copies import make_copies
from moss_train.guards.stragglers import Stragglers
from moss_train.monitors.base import Monitor
from moss_train.monitors.checkpoint_stall import CheckpointStall
from moss_train.monitors.data_wait import DataWait
from moss_train.monitors.elapsed import Elapsed
from moss_train.monitors.event_log import EventLog
from moss_train.monitors.gradient_norms import GradientNorms
from moss_train.monitors.learning_rates import LearningRates
from moss_train.monitors.losses import Losses
from moss_train.monitors.memory import Memory
from moss_train.monitors.metrics_file import MetricsFile
from moss_train.monitors.mfu import Mfu
from moss_train.monitors.monitor_time import MonitorTime
from moss_train.monitors.profiler import Profiler
from moss_train.monitors.progress import ProgressBar, short
from moss_train.monitors.run_report import RunReport
from moss_train.monitors.samples import Samples
from moss_train.monitors.sharded_gradient_norms import ShardedGradientNorms
from moss_train.monitors.speed import Speed
from moss_train.monitors.wandb_log import WandbLog
from moss_train.planning.flops import gpu_of
from moss_train.planning.parameters import model_parameters
from moss_train.setup import Session


def make_monitors(session: Session) -> list[Monitor]:
    """In the order in which they are told; what writes or prints comes after what measures, on the first rank only."""
    monitors = _on_every_rank(session)
    if session.layout.rank == 0:
        monitors += [*_measuring(session), *_writing(session)]
    return [*monitors, MonitorTime(monitors)]


def _on_every_rank(session: Session) -> list[Monitor]:
    """Those that take part in collectives, or work on chosen ranks."""
    config, folder, layout = session.config, session.folder, session.layout
    monitors: list[Monitor] = []
    if profiler := Profiler.make(config.profile, folder.path, layout.rank, layout.world_size, layout.device):
        monitors.append(profiler)
    guard = config.guard
    if guard.report_stragglers_every and layout.world_size > 1:
        path, every = folder.path / "stragglers.jsonl", guard.report_stragglers_every
        monitors.append(Stragglers(layout, path, every, guard.straggler_factor, guard.straggler_reports))
    if copies := make_copies(session, guard.check_copies_every):
        monitors.append(copies)
    if config.evaluation.best is not None:
        monitors.append(BestCheckpoint(config.evaluation, folder.path, layout.rank == 0, session.agreement.from_first))
    if every := config.logging.gradient_norms_every:
        monitors.append(
            ShardedGradientNorms(session.models, session.optimization, layout, every)
            if isinstance(session.optimization, DeepSpeedOptimization)
            else GradientNorms(session.models, session.optimization, layout, every)
        )
    if config.logging.memory_every:
        monitors.append(Memory(layout.device, config.logging.memory_every, layout.world_size))
    return monitors


def _measuring(session: Session) -> list[Monitor]:
    config, device = session.config, session.layout.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return [
        Losses(),
        LearningRates(),
        Speed(),
        Mfu(config, session.model_config, gpu_of(name), session.layout.world_size, name),
        DataWait(),
        CheckpointStall(config.train.log_every),
        Samples(session.counts, LeftOut(session.folder.quarantine)),
        Elapsed(),
    ]


def _writing(session: Session) -> list[Monitor]:
    config, folder = session.config, session.folder
    logging, every = config.logging, config.train.log_every
    setting = {"ranks": session.layout.world_size, "engine": config.engine, "device": session.layout.device.type}
    sizes = {name: size for name, size in dataclasses.asdict(config.parallel).items() if type(size) is int and size > 1}
    monitors: list[Monitor] = [
        MetricsFile(folder.metrics, every),
        EventLog(folder.events, setting | ({"parallel": sizes} if sizes else {})),
    ]
    if logging.progress:
        monitors.append(ProgressBar(config.stage.name, opening=_opening(session, sizes)))
    if logging.wandb != "disabled":
        name = f"{config.stage.name}-{folder.path.name}"
        monitors.append(WandbLog(folder.wandb, logging, name, dataclasses.asdict(config), folder.metrics, every))
    if logging.report:
        monitors.append(RunReport(folder.path))
    return monitors


def _opening(session: Session, sizes: dict[str, int]) -> str:
    """What trains where, in a line."""
    config, layout = session.config, session.layout
    device = torch.cuda.get_device_name(layout.device) if layout.device.type == "cuda" else "cpu"
    ranks = ", ".join(f"{name} {size}" for name, size in ({"data": layout.data_size} | sizes).items() if size > 1)
    parameters = short(model_parameters(session.model_config).total)
    adapters = f"adapters of rank {config.lora.rank} in " if config.lora.rank else ""
    return (
        f"{parameters} parameters, trains {adapters}{config.stage.trainable}; {layout.world_size} x {device}"
        f"{f' ({ranks})' if ranks else ''}; {session.folder.path}"
    )
