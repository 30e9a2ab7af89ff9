"""Which run is measured: its config, the layout for a number of GPUs, and why."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model.config import VideoMllamaConfig
from model.errors import InputError
from moss_train.bench.fleet.machine import Machine
from moss_train.bench.fleet.shards import A_PACK
from moss_train.bench.saving import checkpoint_bytes
from moss_train.bench.subject import Cut, overrides_of, with_model
from moss_train.config.compose import compose
from moss_train.config.schema import ParallelConfig, RunConfig
from moss_train.planning.expected import ExpectedPack
from moss_train.planning.hardware import Cluster
from moss_train.planning.layouts import short
from moss_train.planning.memory import PackLoad, plan_memory
from moss_train.planning.parameters import model_parameters
from moss_train.planning.run_plan import check_layout
from moss_train.planning.step_time import step_time

GIB = 2**30
FILLED = 0.94
"""Share of a GPU that a layout may take by the plan."""
TENSOR = (1, 2, 4, 8)
LESS_GIB = (6.0, 2.0, 0.0)
"""`vision.keep_activations_gib` that is tried beside the config's."""
AUTO, HALF, OTHER_TENSOR = "auto", "half", "tensor"
STEPS = 100_000
"""Of each run: more than any measurement waits for, so that no run saves because it is at its end."""


@dataclass(frozen=True)
class Options:
    """What is asked for."""

    model: str = "11b"
    stage: str = "pt2"
    rows: int = 4096
    frames: int = 64
    micro_batches: int = 1
    """Of each GPU in a step: the global batch is so many times the GPUs, in every layout."""
    layers: int | None = None
    """Decoder layers of the run whose rates are measured; None takes all."""
    tower_layers: int | None = None
    checkpoint_gb: float | None = 20.0
    """Size to which the run that is saved is cut; None saves the whole one."""
    readers: int = 8
    """Reader processes for each GPU."""
    steps: int = 8
    """Measured ones."""
    warmup: int = 3
    save_step: int = 24
    """The step behind which the checkpoint is taken."""
    repeated: int = 4
    """Steps behind the checkpoint that are done again after a kill, and in another layout."""
    at_once: bool = False
    """Start the run in another layout at the moment of the kill, where a GPU holds both: sooner, and each disturbs the other."""
    reshard: str = AUTO
    """auto | half | tensor: half of the GPUs, other sizes of tensor parallelism on the same, or the first that fits."""
    overrides: tuple[str, ...] = field(default_factory=tuple)


@dataclass(frozen=True)
class Chosen:
    """A run in a layout."""

    config: RunConfig
    ranks: int
    bytes: int
    """Of a rank, by the plan."""
    seconds: float | None
    """Of a step, by the plan; None where the GPU is not in its table."""
    why: str

    @property
    def layout(self) -> str:
        """In a few letters."""
        data = self.ranks // (self.config.parallel.tensor * self.config.parallel.pipeline * self.config.parallel.context)
        sizes = short(self.config.parallel)
        return f"DP{data}" if self.config.parallel == ParallelConfig() else f"DP{data} {sizes.removeprefix('data parallel, ')}"

    def described(self) -> dict[str, Any]:
        """For the file of results."""
        model = VideoMllamaConfig.from_dict(self.config.model)
        return {
            "ranks": self.ranks, "layout": self.layout, "parallel": dataclasses.asdict(self.config.parallel),
            "why": self.why, "planned_bytes": self.bytes, "planned_seconds": self.seconds,
            "parameters": model_parameters(model).total, "checkpoint_bytes": checkpoint_bytes(self.config),
            "text_layers": model.text.num_hidden_layers,
            "tower_layers": model.vision.num_hidden_layers + model.vision.num_global_layers,
            "keep_activations_gib": self.config.vision.keep_activations_gib,
            "global_batch": self.config.train.global_batch_size,
        }  # fmt: skip


def run_config(options: Options, cut: Cut, data: Path, machine: Machine, more: tuple[str, ...] = ()) -> RunConfig:
    """The run of a depth, on one rank's layout.

    Raises:
        InputError: a name, size or depth that there is not.
    """
    own = [
        f"data.root={data}", "data.datasets=[{name:video,path:video,modality:video}]",
        "data.mixture={text:0.0,image:0.0,video:1.0}", f"data.global_data_workers={options.readers * machine.ranks}",
        "data.shuffle_buffer=2", "data.packing_buffer=4", f"data.samples_per_pack={A_PACK}",
        f"stage.sequence_length={options.rows}", f"stage.max_frames_per_pack={options.frames}", "stage.gate_init=0.5",
        f"train.global_batch_size={options.micro_batches * machine.ranks}", f"train.steps={STEPS}", "train.save_every=0",
        "train.eval_every=0", "train.eval_batches=0", "train.random_weights=device", "guard.lost_rank_seconds=10",
        "guard.hang_seconds=120", "guard.slow_seconds=300", "guard.report_stragglers_every=0", "logging.progress=false",
        "logging.report=false", "logging.wandb=disabled", "logging.memory_every=1", "logging.gradient_norms_every=0",
        f"device={machine.device}",
    ]  # fmt: skip
    words = overrides_of(options.stage, model=options.model, cut=cut, optimizer="compact", more=[*own, *more, *options.overrides])
    return compose(words)


def saved_cut(options: Options, data: Path, machine: Machine) -> Cut:
    """The depth of the run that is saved: as deep as its checkpoint may be large, the tower a fifth of its depth."""
    whole = Cut(options.layers, options.tower_layers)
    config = run_config(options, whole, data, machine)
    if options.checkpoint_gb is None or checkpoint_bytes(config) <= options.checkpoint_gb * 1e9:
        return whole
    model = VideoMllamaConfig.from_dict(config.model)
    local, kept = model.vision.num_hidden_layers, len(model.vision.intermediate_layers_indices)
    tower = max(kept + 1, (local + model.vision.num_global_layers) // 5)
    least = min(model.text.cross_attention_layers) + 1
    shallow = run_config(options, Cut(least, tower), data, machine)
    vision = VideoMllamaConfig.from_dict(shallow.model).vision
    for layers in range(model.text.num_hidden_layers, least, -1):
        places = tuple(place for place in model.text.cross_attention_layers if place < layers)
        text = dataclasses.replace(model.text, num_hidden_layers=layers, cross_attention_layers=places)
        cut = with_model(shallow, dataclasses.replace(model, text=text, vision=vision))
        if checkpoint_bytes(cut) <= options.checkpoint_gb * 1e9:
            return Cut(layers, tower)
    return Cut(least, tower)


def choose(config: RunConfig, ranks: int, machine: Machine, options: Options, *, other_than: ParallelConfig | None = None,
           ) -> Chosen:  # fmt: skip
    """The layout of a run: of those that fit, the fastest by the plan; where the GPU is unknown to it, the simplest.

    Args:
        ranks: GPUs.
        other_than: sizes that are not wanted.

    Raises:
        InputError: none fits.
    """
    fitting: list[Chosen] = []
    least: Chosen | None = None
    given = other_than is None and config.parallel != ParallelConfig()  # by the overrides
    for candidate in [config] if given else _candidates(config, ranks):
        if other_than is not None and candidate.parallel.tensor == other_than.tensor:
            continue
        try:
            _, count = check_layout(candidate, ranks)
        except InputError:
            continue
        load = PackLoad(options.rows, options.frames, options.rows - options.frames, A_PACK, count)
        need = plan_memory(candidate, ranks, load).worst.total
        found = Chosen(candidate, ranks, need, _seconds(candidate, ranks, machine, options, count), "")
        if least is None or need < least.bytes:
            least = found
        if need <= FILLED * machine.card:
            fitting.append(found)
    if not fitting:
        need_gib = "no layout is possible" if least is None else f"the least a rank needs is {least.bytes / GIB:.1f} GiB"
        raise InputError(
            f"--gpus {ranks}: no layout fits {machine.card / GIB:.1f} GiB ({need_gib}); give fewer --layers, --rows or --frames"
        )
    best = min(fitting, key=lambda found: found.seconds or 0.0)  # the first, the simplest, where no time is known
    kept = f", {best.config.vision.keep_activations_gib:g} GiB for frames"
    how = "the fastest by the plan" if best.seconds is not None else "the simplest"
    held = f"{best.bytes / GIB:.1f} of {machine.card / GIB:.1f} GiB a rank by the plan{kept}"
    return dataclasses.replace(best, why=f"{how} of {len(fitting)} layouts that fit: {held}")


def _candidates(config: RunConfig, ranks: int) -> Iterator[RunConfig]:
    """The simplest first: whole layers kept, then computed again; the config's memory for frames, then less of it."""
    visions = [config.vision]
    for gib in (part for part in LESS_GIB if part < config.vision.keep_activations_gib):
        again = config.vision.again_chunk_frames or (2 if gib == 0 else 4)
        visions.append(dataclasses.replace(config.vision, keep_activations_gib=gib, again_chunk_frames=again))
    for tensor in (size for size in TENSOR if ranks % size == 0):
        sizes = [ParallelConfig(tensor=tensor, sequence_parallel=tensor > 1, recompute=how) for how in ("none", "full")]
        for parallel, vision in itertools.product(sizes, visions):
            yield dataclasses.replace(config, parallel=parallel, vision=vision)


def _seconds(config: RunConfig, ranks: int, machine: Machine, options: Options, micro_batches: int) -> float | None:
    if machine.gpu is None:
        return None
    rows, frames = options.rows, options.frames
    each = rows / A_PACK
    pack = ExpectedPack(rows, frames, A_PACK, rows * (each + 1) / 2, frames * each, rows, "full packs")
    return step_time(config, ranks, pack.work(config.train.global_batch_size), Cluster(machine.gpu), micro_batches).total
