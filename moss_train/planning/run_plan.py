"""`moss plan`: everything that follows from a run's configuration and a number of GPUs, before it is queued."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from model.config import VideoMllamaConfig
from model.errors import InputError
from model.text.stages import check_parallel, check_stage_layers, layers_per_stage
from moss_train.config.schema import RunConfig
from moss_train.engines.optimizer.modules import ModuleRates
from moss_train.parallel.sizes import check_batch, check_sizes
from moss_train.planning.data_items import DataItem
from moss_train.planning.data_load import LoadOwed, Speeds, load_owed
from moss_train.planning.expected import ExpectedPack
from moss_train.planning.flops import Flops
from moss_train.planning.hardware import Cluster
from moss_train.planning.memory import FREE, Memory, plan_memory
from moss_train.planning.parameters import Parameters, added, model_parameters, pipeline_stages, trained_parameters
from moss_train.planning.step_time import StepTime, step_flops, step_time
from moss_train.planning.tower import KeptFrames

DAY = 86400.0
FP8_ROWS = 16
"""Rows of a rank that fp8 products take a multiple of."""


@dataclass(frozen=True)
class RunPlan:
    """Predictions for one layout."""

    config: RunConfig
    ranks: int
    replicas: int
    micro_batches: int
    """Of a replica in a step."""
    cluster: Cluster
    parameters: Parameters
    trained: int
    """Of the whole model, adapters included."""
    memory: Memory
    needed: Flops
    """Operations that the model needs, of a step."""
    done: Flops
    """Operations that are really done."""
    time: StepTime
    pack: ExpectedPack
    load: LoadOwed | None
    steps: int

    @property
    def fits(self) -> bool:
        return self.memory.fits(self.cluster.gpu.memory)

    @property
    def mfu(self) -> float:
        """Predicted share of the GPUs' bf16 peak that goes into operations of the model."""
        return self.needed.total / (self.time.total * self.ranks * self.cluster.gpu.bf16)

    @property
    def samples(self) -> float:
        """In a step."""
        return self.pack.samples * self.config.train.global_batch_size

    @property
    def days(self) -> float:
        """Of all steps."""
        return self.steps * self.time.total / DAY

    @property
    def gpu_hours(self) -> float:
        """Of all steps, over all GPUs."""
        return self.days * 24 * self.ranks

    @property
    def cost(self) -> float | None:
        """US dollars of all steps."""
        return None if self.cluster.price is None else self.gpu_hours * self.cluster.price

    def why_not(self) -> str | None:
        """Why it does not fit the GPU's memory, in a sentence; None if it does."""
        if self.fits:
            return None
        worst, gpu = self.memory.worst, self.cluster.gpu
        largest = sorted(worst.phases[worst.worst].items(), key=lambda item: -item[1])[:3]
        held = ", ".join(f"{kind} {gb(size)}" for kind, size in largest)
        where = f" of pipeline stage {worst.stage}" if len(self.memory.stages) > 1 else ""
        return (
            f"a rank{where} needs {gb(worst.total)} GB in the phase {worst.worst!r} ({held}), and an {gpu.name} has "
            f"{gb((1 - FREE) * gpu.memory)} GB to give"
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "stage": self.config.stage.name,
            "ranks": self.ranks,
            "parallel": dataclasses.asdict(self.config.parallel),
            "replicas": self.replicas,
            "micro_batches": self.micro_batches,
            "gpu": self.cluster.gpu.name,
            "parameters": {**vars(self.parameters), "total": self.parameters.total, "trained": self.trained},
            "memory": [
                {"stage": s.stage, "phases": s.phases, "outside": s.outside, "peak": s.peak, "total": s.total}
                for s in self.memory.stages
            ],
            "fits": self.fits,
            "why_not": self.why_not(),
            "flops": {"needed": vars(self.needed), "done": vars(self.done)},
            "seconds": {**vars(self.time), "total": self.time.total},
            "mfu": self.mfu,
            "pack": dataclasses.asdict(self.pack),
            "loader": None if self.load is None else dataclasses.asdict(self.load),
            "steps": self.steps,
            "days": self.days,
            "gpu_hours": self.gpu_hours,
            "cost": self.cost,
        }  # fmt: skip


def gb(value: float) -> str:
    """Bytes as GB with a decimal."""
    return f"{value / 1e9:.1f}"


def check_layout(config: RunConfig, ranks: int) -> tuple[int, int]:
    """Data-parallel replicas, and micro-batches of each in a step.

    Raises:
        InputError: sizes, layers, heads or the global batch that do not fit; what a run of them would say.
    """
    parallel = config.parallel
    data = check_sizes(parallel, ranks)
    text = VideoMllamaConfig.from_dict(config.model).text
    check_parallel(text, parallel.tensor, parallel.pipeline, parallel.virtual_pipeline)
    pieces = parallel.pipeline * parallel.virtual_pipeline
    if parallel.stage_layers is not None:
        check_stage_layers(text.num_hidden_layers, pieces, parallel.stage_layers)
    layers_per_stage(text.num_hidden_layers, pieces)
    count = check_batch(config, data)
    multiple = parallel.tensor if parallel.sequence_parallel and parallel.context == 1 else 1  # context ranks pad for themselves
    if config.precision.fp8 != "none":
        multiple = FP8_ROWS * parallel.context * (parallel.tensor if parallel.sequence_parallel else 1)
    if config.stage.sequence_length % multiple:
        raise InputError(
            f"stage.sequence_length is {config.stage.sequence_length}, no multiple of the {multiple} that "
            f"{'precision.fp8' if config.precision.fp8 != 'none' else 'parallel.sequence_parallel'} takes; choose one"
        )
    return data, count


def check_modules(config: RunConfig) -> None:
    """Refuses what the layout has no part in.

    Raises:
        InputError: an entry of `optimizer.modules` that fits no parameter of the model, in the words of training.
    """
    if config.optimizer.modules:
        ModuleRates(config.optimizer, VideoMllamaConfig.from_dict(config.model))


def check_engine_of_plan(config: RunConfig) -> None:
    """Refuses what plans know nothing of.

    Raises:
        InputError: another engine than megatron.
    """
    if config.engine != "megatron":
        raise InputError(f"engine is {config.engine}, whose memory moss plan does not count; plan with engine=megatron")


def plan_run(
    config: RunConfig, ranks: int, cluster: Cluster, pack: ExpectedPack, *,
    steps: int | None = None, stream: Callable[[int], Iterator[DataItem]] | None = None, speeds: Speeds | None = None,
) -> RunPlan:  # fmt: skip
    """Predict a run in its own layout.

    Args:
        ranks: GPUs.
        pack: the average pack.
        steps: of the run; None takes `train.steps`.
        stream: samples for what the loader owes; None leaves it out.
        speeds: of a core.

    Raises:
        InputError: what a run in this layout would refuse.
    """
    check_engine_of_plan(config)
    if config.precision.fp8 != "none" and cluster.gpu.fp8 is None:
        raise InputError(
            f"precision.fp8 is {config.precision.fp8}, which an {cluster.gpu.name} does not have; use precision=bf16"
        )
    data, micro_batches = check_layout(config, ranks)
    model = VideoMllamaConfig.from_dict(config.model)
    work = pack.work(config.train.global_batch_size)
    time = step_time(config, ranks, work, cluster, micro_batches)
    needed, done = step_flops(config, work, KeptFrames.of(config, work.frames / ranks), config.train.global_batch_size)
    whole = pipeline_stages(model, type(config.parallel)())[0]
    load = None
    if stream is not None:
        load = load_owed(
            stream(0), config.data, speeds or Speeds(), step_seconds=time.total,
            step_samples=pack.samples * config.train.global_batch_size, ranks=ranks, replicas=data, pack_frames=pack.frames,
            frame_bytes=model.vision.num_channels * model.vision.image_size**2,
        )  # fmt: skip
    return RunPlan(
        config=config,
        ranks=ranks,
        replicas=data,
        micro_batches=micro_batches,
        cluster=cluster,
        parameters=model_parameters(model),
        trained=added(trained_parameters(model, whole, 1, config.stage, config.lora)).total,
        memory=plan_memory(config, ranks),
        needed=needed,
        done=done,
        time=time,
        pack=pack,
        load=load,
        steps=config.train.steps if steps is None else steps,
    )
