"""The reference's way of a step, made of our modules: one sample, one graph from pixels to loss, every layer checkpointed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from data_pipeline.packing.batch import TOKEN_CLASSES, PackedMicroBatch
from model.context_rows import RowShare
from model.loss import sum_losses
from model.rows import PackedRows
from model.vision.fused.levels import stacks_of, with_level
from moss_train.bench.subject import Subject
from moss_train.engines.models import Models
from moss_train.parallel.layout import ParallelLayout
from moss_train.phases import Phases
from moss_train.signals import Signals
from moss_train.statistics import StepStatistics, StepSums, real_rows
from moss_train.step import StepSettings

OVERRIDES = (
    "modules=torch", "attention.cross=dense", "parallel.recompute=full", "vision.layers=torch", "vision.keep_mode=input",
    "vision.keep_activations_gib=-1", "precision.grad_reduce_fp32=false",
)  # fmt: skip
"""Of a run's config: torch's norms, products and attention, a dense mask, layers computed again in the backward pass."""
ZERO_OVERRIDES = (
    "modules=torch", "attention.cross=dense", "parallel.recompute=full", "vision.layers=torch", "vision.keep_mode=input",
    "vision.keep_activations_gib=0", "vision.encode_chunk_frames=4096", "precision.grad_reduce_fp32=false", "engine=deepspeed",
    "deepspeed=zero2",
)  # fmt: skip
"""The same in DeepSpeed's ZeRO-2, where any bound of memory lets layers keep their input alone; one call of the tower."""


class ReferenceWay(Subject):
    """A run's modules, trained the reference's way; gradients stay in the parameters' `grad`, in the parameters' dtype.

    Args and methods are those of `Subject`; there is no optimizer, and of the config `OVERRIDES` have to be a part.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, updates=False, **options)

    def _optimization(self, micro_batches: int) -> Any:
        return None

    def _step(self, settings: StepSettings) -> Any:
        return WholeGraphStep(self.models, self.layout, settings)


class WholeGraphStep:
    """Forward and backward of each micro-batch by itself, pixels to loss in one graph of autograd.

    The loss is the mean over the micro-batch's targets; each micro-batch's gradients replace those of the one before, as where
    every sample is a step of its own.

    Args:
        models: of a run with `OVERRIDES`; how layers are applied is set here.
        layout: of one rank.
        settings: names of datasets and weights of silence.
    """

    def __init__(self, models: Models, layout: ParallelLayout, settings: StepSettings) -> None:
        self._models, self._layout, self._settings = models, layout, settings
        self.phases = Phases(layout.device)
        for chunk in models.chunks:
            chunk.head_loss = None  # all logits at once
        for stack in stacks_of(models.vision):
            stack.apply_layer = with_level(stack.apply_layer, "input")

    def accumulate(self, batches: Sequence[PackedMicroBatch], signals: Signals | None = None) -> StepStatistics:
        """Leave the gradient of the last micro-batch's mean loss in the parameters."""
        sums = StepSums(self._settings.dataset_names, self._layout.device)
        for batch in batches:
            self._models.unit.zero_grad(set_to_none=True)
            for chunk in self._models.chunks:
                chunk.zero_grad(set_to_none=True)
            loss = self._forward(batch, sums)
            with self.phases("return"):
                loss.backward()
        with self.phases("statistics"):
            return sums.reduce([sum(batch.num_frames for batch in batches)])

    def _forward(self, batch: PackedMicroBatch, sums: StepSums) -> torch.Tensor:
        """Mean loss, a scalar."""
        device, encoder = self._layout.device, self._models.vision
        rows = PackedRows.of(batch, device)
        states = None
        if batch.num_frames:
            with self.phases("encode"):
                pixels = batch.frames.to(device, non_blocking=True)
                # Pooled behind the join of the states, as there.
                states = encoder.project(encoder.tower(pixels, batch.aspect_ratio_ids.to(device)))  # [F, P, H]
        with self.phases("decode"):
            losses = self._models.chunks[0](rows, states)  # fp32 [T]
        assert rows.targets is not None
        added = sum_losses(
            losses, rows.targets, batch.token_class.to(device), num_classes=len(TOKEN_CLASSES),
            silence_id=self._settings.silence_id, silence_weight=self._settings.silence_token_weight,
        )  # fmt: skip
        sums.add(added, losses, batch, RowShare(rows, rows.targets))
        sums.add_size(real_rows(batch), batch.num_frames)
        return added.total / added.count.clamp(min=1)
