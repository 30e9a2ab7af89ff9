"""`moss data plan`: everything that follows from a stage, its data and the ranks, before a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.parallel.sizes import check_sizes
from moss_train.planning.data_cost import StepCost
from moss_train.planning.data_items import DataItem
from moss_train.planning.data_load import LoadOwed, Speeds, load_owed
from moss_train.planning.data_steps import PackBounds, PackShape, StepBalance, balance, pack_shape, packed

BUFFERS = (16, 64, 256)
Stream = Callable[[int], Iterator[DataItem]]
"""From a seed to an endless stream of samples."""


@dataclass(frozen=True)
class Machine:
    """What the steps run on."""

    peak_tflops: float
    """Of a GPU."""
    mfu: float
    """Share of the peak that is reached; only where the time of a step is not given."""
    step_seconds: float | None = None

    def seconds(self, operations: float) -> float:
        """Time of a step whose slowest rank has so many operations."""
        return self.step_seconds if self.step_seconds is not None else operations / (self.peak_tflops * 1e12 * self.mfu)


@dataclass(frozen=True)
class DataPlan:
    """Predictions."""

    stage: str
    shapes: list[PackShape]
    """By size of the packing buffer; the configured one is the first."""
    steps: list[StepBalance]
    """By number of ranks."""
    loads: list[LoadOwed]
    """By number of ranks."""
    speeds: Speeds

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dataclasses.asdict(self)

    def too_slow(self, cores_per_gpu: float) -> list[str]:
        """One sentence for each number of ranks at which the loader cannot keep up."""
        return [
            f"{step.ranks} ranks: decoding owes {load.cores:.3g} cores a GPU at {load.step_seconds:.3g} s a step, "
            f"more than the {cores_per_gpu:g} of --cores-per-gpu"
            for step, load in zip(self.steps, self.loads, strict=True)
            if load.cores > cores_per_gpu
        ]


def plan_data(
    config: RunConfig,
    stream: Stream,
    ranks: Sequence[int],
    machine: Machine,
    *,
    steps: int,
    seed: int = 0,
    speeds: Speeds | None = None,
) -> DataPlan:
    """Draw samples and steps, and add up.

    Raises:
        InputError: a number of ranks does not fit `parallel`.
    """
    stage, data = config.stage, config.data
    replicas = [check_sizes(config.parallel, count) for count in ranks]
    bounds = PackBounds(stage.sequence_length, stage.max_frames_per_pack, data.samples_per_pack, data.packing_buffer)
    sizes = [data.packing_buffer, *(size for size in BUFFERS if size != data.packing_buffer)]
    shapes = [pack_shape(stream(seed), dataclasses.replace(bounds, buffer=size)) for size in sizes]
    cost, speeds = StepCost.of(config), speeds or Speeds()
    found, loads = [], []
    for count, share in zip(ranks, replicas, strict=True):
        each = max(1, round(config.train.global_batch_size / share))
        step = balance(
            packed(stream(seed), bounds), stream(seed), cost, bounds.rows,
            ranks=count, replica_ranks=count // share, each=each, steps=steps,
        )  # fmt: skip
        found.append(step)
        loads.append(_load(config, stream(seed), step, machine, speeds))
    return DataPlan(stage.name, shapes, found, loads, speeds)


def _load(config: RunConfig, stream: Iterator[DataItem], step: StepBalance, machine: Machine, speeds: Speeds) -> LoadOwed:
    vision = VideoMllamaConfig.from_dict(config.model).vision
    return load_owed(
        stream,
        config.data,
        speeds,
        step_seconds=machine.seconds(step.cost),
        step_samples=step.samples,
        ranks=step.ranks,
        replicas=step.replicas,
        pack_frames=step.frames * step.ranks / step.replicas / step.packs,
        frame_bytes=vision.num_channels * vision.image_size**2,
    )


def check_plan(ranks: Sequence[int], steps: int, samples: int, machine: Machine, cores_per_gpu: float | None = None) -> None:
    """Refuses arguments without a meaning.

    Raises:
        InputError: one is out of bounds.
    """
    for name, value in (("ranks", min(ranks)), ("steps", steps), ("samples", samples)):
        if value < 1:
            raise InputError(f"--{name} is {value}; it must be at least 1")
    if not 0 < machine.mfu <= 1:
        raise InputError(f"--mfu is {machine.mfu:g}; it must be above 0 and at most 1")
    amounts = (("peak-tflops", machine.peak_tflops), ("step-seconds", machine.step_seconds), ("cores-per-gpu", cores_per_gpu))
    for name, amount in amounts:
        if amount is not None and not 0 < amount < math.inf:
            raise InputError(f"--{name} is {amount:g}; it must be above 0 and finite")
