"""One trial: a few updates of a freeze preset in a layout, with everything that another layout must reproduce."""

from __future__ import annotations

import dataclasses
import zlib
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist

from model.attention.cores import CrossCore
from model.attention.cross import flash
from model.conversion import gather_hf_weights, load_hf_weights
from model.errors import InputError
from model.text.provider import choose_provider
from model.vision.fused.levels import all_fused
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig, StageConfig
from moss_train.dense_step import DenseStep
from moss_train.engines.models import Models, build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.layout import ParallelLayout
from moss_train.step import DecoupledStep, StepSettings
from moss_train.verify.layouts.names import DENSE, UPDATES, Trial
from moss_train.verify.layouts.subject import (
    DATASETS,
    DENSE_CLASSES,
    SAMPLES,
    SILENCE,
    global_batch,
    run_subject_config,
    subject_config,
    subject_weights,
)

LEARNING_RATES = {"sgd": 5e-2, "adamw": 3e-4}
OPTIMIZERS = {
    "sgd": OptimizerConfig(name="sgd", distributed=False, clip_grad=0.5, weight_decay=0.01),
    "adamw": OptimizerConfig(name="adam", distributed=True, clip_grad=0.5, weight_decay=0.01),
}
"""SGD with whole gradients on every rank, which are compared; AdamW with its state sharded over data-parallel ranks."""


@dataclass
class Outcome:
    """What a trial left, the same figures on every rank and whole tensors on rank 0."""

    loss: list[float] = field(default_factory=list)
    """Of each update."""
    norm: list[float] = field(default_factory=list)
    """Global gradient norm of each update, before clipping."""
    planned: list[list[int]] = field(default_factory=list)
    """Frames of each rank that the step says to encode, by update."""
    again: list[int] = field(default_factory=list)
    """Frames that rank 0 encoded a second time, by update."""
    encoded: list[list[list[int]]] = field(default_factory=list)
    """Fingerprints of the frames that each rank's tower really took, by update."""
    statistics: dict[str, Any] = field(default_factory=dict)
    """Log values of the last update."""
    gradients: dict[str, torch.Tensor] | None = None
    """Of the first update, by published name; only with whole gradients on every rank."""
    made_of: str = ""
    """What computed it: see `described`."""
    weights: dict[str, torch.Tensor] | None = None
    """After the last update."""


def _watch_tower(models: Models) -> list[int]:
    """A list that grows by a fingerprint of each frame that this rank's tower encodes."""
    seen: list[int] = []

    def note(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        seen.extend(zlib.crc32(frame.float().contiguous().cpu().numpy().tobytes()) for frame in arguments[0].detach())

    models.vision.vision_model.register_forward_pre_hook(note)
    return seen


def _gradients(models: Models) -> dict[str, torch.Tensor] | None:
    """Whole gradients by published name, on rank 0."""

    def of(parameter: torch.nn.Parameter) -> torch.Tensor:
        found: torch.Tensor | None = getattr(parameter, "main_grad", None)
        return torch.zeros_like(parameter, dtype=torch.float32) if found is None else found

    return gather_hf_weights(models.chunks, models.vision, of)


def cross_backend(modules: str, device: torch.device) -> str:
    """Of the cross-attention: flash-attn-4 where a run would take it, which a pack as small as the check's would not."""
    taken = flash.available(device) and not torch.are_deterministic_algorithms_enabled()
    return "flash" if modules == "auto" and taken else "auto"


def build_subject(modules: str, dtype: str, layout: ParallelLayout, dense_classes: int | None = None) -> Models:
    """The model of the check in this rank's place, with its weights; nothing is frozen.

    Args:
        modules: torch | transformer_engine | auto.
        dtype: fp32 | bf16.

    Raises:
        InputError: sizes that do not fit the model, or modules that the machine does not have.
    """
    config = run_subject_config() if modules == "auto" else subject_config(wide_heads=modules == "transformer_engine")
    provider = choose_provider(modules, dtype=dtype, head_dim=config.text.head_dim)
    cross = cross_backend(modules, layout.device)
    models = build_models(config, layout, dtype=dtype, dense_classes=dense_classes, provider=provider, cross_attention=cross)
    load_hf_weights(models.chunks, models.vision, subject_weights(config))
    return models


def described(models: Models) -> str:
    """What a model is made of on this rank: its products, the backend of its cross-attention, its tower."""
    kinds = {type(m).__name__ for chunk in models.chunks for name, m in chunk.named_modules() if name.endswith("linear_fc1")}
    cross = {m.backend for chunk in models.chunks for m in chunk.modules() if isinstance(m, CrossCore)} or {"none here"}
    tower = "fused" if all_fused(models.vision) else "torch"
    return f"{'+'.join(sorted(kinds))}, cross-attention {'+'.join(sorted(cross))}, tower {tower}"


def _make_step(models: Models, optimization: Optimization, layout: ParallelLayout, trial: Trial) -> DecoupledStep | DenseStep:
    if trial.preset == DENSE:
        return DenseStep(models, optimization, layout, chunk=2)
    settings = StepSettings(
        silence_token_weight=0.1,
        silence_id=SILENCE,
        encode=EncodeSettings(keep_frames=trial.keeps, chunk=2, again_chunk=2, fused=all_fused(models.vision)),
        dataset_names=DATASETS,
    )
    return DecoupledStep(models, optimization, layout, settings)


def own_batches(sizes: ParallelConfig, replicas: int, replica: int) -> slice:
    """Which micro-batches of the global batch are a replica's.

    Raises:
        InputError: replicas or interleaved stages that the global batch does not divide among.
    """
    own, rest = divmod(len(SAMPLES), replicas)
    if rest:
        raise InputError(f"the check's {len(SAMPLES)} micro-batches do not divide among {replicas} replicas; use another dpN")
    if sizes.virtual_pipeline > 1 and own % sizes.pipeline:
        raise InputError(
            f"a replica has {own} micro-batches, no multiple of its {sizes.pipeline} stages as vppN needs; use another ppN or dpN"
        )
    return slice(replica * own, (replica + 1) * own)


def run_trial(trial: Trial, layout: ParallelLayout, updates: int = UPDATES) -> Outcome:
    """Builds the model in this rank's place and updates it `updates` times; every rank of the world calls it.

    Raises:
        InputError: sizes that do not fit the model.
    """
    own = own_batches(layout.sizes, layout.data_size, layout.place.data)
    dense = trial.preset == DENSE
    models = build_subject(trial.modules, trial.dtype, layout, DENSE_CLASSES if dense else None)
    config = models.config
    freeze(models, StageConfig(name="layouts", trainable="vision_tower" if dense else trial.preset))
    seen = _watch_tower(models)
    optimizer, precision = OPTIMIZERS[trial.optimizer], PrecisionConfig(dtype=trial.dtype)
    optimization = Optimization(models.chunks, models.unit, models.transformer_config, layout, optimizer, precision)
    step = _make_step(models, optimization, layout, trial)
    outcome, rate = Outcome(made_of=described(models)), LEARNING_RATES[trial.optimizer]
    for i in range(updates):
        statistics = step.accumulate(global_batch(config, i)[own])
        if i == 0 and not optimizer.distributed:
            outcome.gradients = _gradients(models)
        optimization.set_learning_rates(rate, rate)
        outcome.norm.append(optimization.update())
        outcome.loss.append(statistics.loss)
        outcome.planned.append(statistics.encoded_by_rank)
        outcome.again.append(statistics.encoded_again)
        everywhere: list[list[int]] = [[]] * layout.world_size
        dist.all_gather_object(everywhere, list(seen))
        outcome.encoded.append(everywhere)
        seen.clear()
        outcome.statistics = dataclasses.asdict(statistics)
    outcome.weights = gather_hf_weights(models.chunks, models.vision)
    return outcome
