"""One step on this rank: what it really sends, and what the plan says of it."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from model.context_rows import share_rows
from model.rows import PackedRows
from model.text.provider import torch_provider
from moss_train.config.schema import (
    LORA_ALSO,
    GuardConfig,
    LoggingConfig,
    LoraConfig,
    OptimizerConfig,
    ParallelConfig,
    PrecisionConfig,
    RunConfig,
    StageConfig,
    TrainConfig,
    VisionStepConfig,
)
from moss_train.dense_step import DenseStep
from moss_train.engines.adapters import adapt
from moss_train.engines.models import Models, build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.feed.agreement import Agreement
from moss_train.feed.feed import Feed
from moss_train.feed.wire import pack_rows
from moss_train.frames.settings import EncodeSettings
from moss_train.guards.copies import Copies
from moss_train.guards.stragglers import Stragglers
from moss_train.monitors.base import Monitor, Update
from moss_train.monitors.gradient_norms import GradientNorms
from moss_train.monitors.memory import Memory
from moss_train.parallel.layout import ParallelLayout
from moss_train.planning.communication.calls import Traffic
from moss_train.planning.communication.counted import Counter, names_of_groups
from moss_train.planning.communication.shape import Pack, StepShape
from moss_train.step import DecoupledStep, StepSettings
from moss_train.verify.communication.case import PACKS, Case
from moss_train.verify.layouts.subject import DATASETS, DENSE_CLASSES, ROWS, SAMPLES, SILENCE, make_pack, subject_config
from moss_train.verify.layouts.trial import own_batches


def lora_of(case: Case) -> LoraConfig:
    """The adapters of a case."""
    words = case.lora.split(",") if case.lora else []
    targets, also = [w for w in words if w not in LORA_ALSO], [w for w in words if w in LORA_ALSO]
    return LoraConfig(rank=4, targets=targets, train_also=also) if words else LoraConfig()


def run_config(case: Case) -> RunConfig:
    """The configuration of a case, from which both the step and the prediction are made. Every monitor works in every step."""
    dense = case.preset == "dense_labels"
    return RunConfig(
        run_dir="none",
        model=dataclasses.asdict(subject_config()),
        stage=StageConfig(
            name="communication", trainable="vision_tower" if dense else case.preset, sequence_length=ROWS,
            objective="dense_labels" if dense else "next_token", dense_classes=DENSE_CLASSES,
        ),
        train=TrainConfig(global_batch_size=PACKS),
        parallel=case.sizes,
        optimizer=OptimizerConfig(distributed=case.optimizer == "sharded", name="muon" if case.optimizer == "muon" else "adam"),
        precision=PrecisionConfig(dtype=case.dtype, grad_reduce_fp32=case.grad_fp32),
        vision=VisionStepConfig(window_gib=case.window_gib),
        lora=lora_of(case),
        modules="torch",
        guard=GuardConfig(check_copies_every=1, report_stragglers_every=1),
        logging=LoggingConfig(gradient_norms_every=1, memory_every=1),
    )  # fmt: skip


class _Packs:
    """A loader of the replica's packs, the same in every step."""

    def __init__(self, batches: Sequence[PackedMicroBatch]) -> None:
        self._batches = list(batches)

    def __iter__(self) -> Iterator[PackedMicroBatch]:
        return iter(self._batches)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def close(self) -> None: ...


def packs_of(case: Case) -> list[PackedMicroBatch]:
    """The global batch: packs with frames and one without, or of text alone."""
    config, dense = subject_config(), case.preset == "dense_labels"
    samples = SAMPLES if case.frames else [[(tokens, 0) for tokens, _ in pack] for pack in SAMPLES]
    return [make_pack(config, i, pack, ROWS, DENSE_CLASSES if dense else None) for i, pack in enumerate(samples)]


def _step(config: RunConfig, models: Models, optimization: Optimization, layout: ParallelLayout) -> DecoupledStep | DenseStep:
    if config.stage.objective == "dense_labels":
        return DenseStep(models, optimization, layout, chunk=2)
    element = models.dtype.itemsize
    encode = EncodeSettings.of(config.vision, models.config.vision, element, models.config.switches.vit_keep_pad_tokens)
    return DecoupledStep(models, optimization, layout, StepSettings(0.1, SILENCE, encode, DATASETS))


def count_step(case: Case, layout: ParallelLayout) -> Traffic:
    """What this rank sends in the second of two steps; every rank of the world calls it."""
    config, dense = run_config(case), case.preset == "dense_labels"
    models = build_models(
        subject_config(), layout, dtype=case.dtype, dense_classes=DENSE_CLASSES if dense else None, provider=torch_provider()
    )
    adapt(models, config.lora, config.stage, seed=1)
    freeze(models, config.stage, config.lora)
    optimization = Optimization(models.chunks, models.unit, models.transformer_config, layout, config.optimizer, config.precision)
    step, agreement = _step(config, models, optimization, layout), Agreement(layout)
    own = packs_of(case)[own_batches(layout.sizes, layout.data_size, layout.place.data)]
    loader: Any = _Packs(own)
    feed = Feed(lambda: loader, agreement, layout, DATASETS)
    with tempfile.TemporaryDirectory() as scratch:
        monitors: list[Monitor] = [
            Stragglers(layout, Path(scratch) / "stragglers.jsonl", 1, 2.0, 3),
            Copies(models.chunks, models.unit, layout, 1),
            GradientNorms(models, optimization, layout, 1),
            Memory(layout.device, 1, layout.world_size),
        ]
        counter = Counter(names_of_groups(layout, agreement))
        _one(1, step, optimization, feed, monitors, len(own))
        with counter:
            _one(2, step, optimization, feed, monitors, len(own))
        for monitor in monitors:
            monitor.finished()
    return counter.traffic


def _one(
    number: int, step: DecoupledStep | DenseStep, optimization: Optimization, feed: Feed, monitors: Sequence[Monitor], packs: int
) -> None:
    """A step as the trainer makes it."""
    for monitor in monitors:
        monitor.begun(number)
    data = feed.read(packs, number)
    statistics = step.accumulate(data.batches)
    optimization.set_learning_rates(1e-4, 1e-4)
    update = Update(number, data, statistics, optimization.prepare(), {})
    for monitor in monitors:
        monitor.prepared(update)
    optimization.apply()
    for monitor in monitors:
        monitor.measured(update)
    for monitor in monitors:
        monitor.stepped({"step": number})


def shape_of(case: Case, replicas: int) -> StepShape:
    """The packs of the case as the plan takes them."""
    sizes, batches = case.sizes, packs_of(case)
    shares = [batches[own_batches(sizes, replicas, replica)] for replica in range(replicas)]
    content = tuple(len(pack_rows(own)) for own in shares)
    return StepShape(tuple(shapes_of(own, sizes) for own in shares), len(DATASETS), content)


def shapes_of(batches: Sequence[PackedMicroBatch], sizes: ParallelConfig) -> tuple[Pack, ...]:
    """A replica's micro-batches as the plan takes them."""
    rows = [PackedRows.of(batch, "cpu") for batch in batches]
    multiple = sizes.tensor if sizes.sequence_parallel else 1
    by_rank = [share_rows(rows, sizes.context, rank, multiple) for rank in range(sizes.context)]
    packs = []
    for batch, shares in zip(batches, zip(*by_rank, strict=True), strict=True):
        chosen = [share.targets for share in shares if share.targets is not None]
        targets = tuple(max(1, int((found != IGNORE_INDEX).sum())) for found in chosen)  # the head runs on a row at least
        packs.append(Pack(tuple(batch.cu_seqlens.diff().tolist()), batch.num_frames, targets))
    return tuple(packs)
