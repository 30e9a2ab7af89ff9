"""Loss curves of the small model in fp8 against bf16: the decoupled step, the same weights and micro-batches."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch

from model.config import VideoMllamaConfig
from model.initialise import initialise_weights, set_cross_gates
from moss_train.config.compose import compose
from moss_train.config.schema import OptimizerConfig, PrecisionConfig
from moss_train.engines.optimization import Optimization
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.layout import ParallelLayout
from moss_train.schedule import LearningRate
from moss_train.step import DecoupledStep, StepSettings
from moss_train.verify.engine.subject import (
    ALL_FP8,
    CURRENT,
    DELAYED,
    ENGINE,
    TORCH,
    Variant,
    build,
    forget_engine,
    learnable_pack,
)

VARIANTS = (TORCH, ENGINE, DELAYED, CURRENT, ALL_FP8)
ROWS = ((64, 4), (96, 6), (96, 0))
"""Rows and frames of each micro-batch's samples: 256 rows, 10 frames; a clip's colour tells how its tokens go on."""
LEARNING_RATE = 2e-3


def small_config() -> VideoMllamaConfig:
    """`model=small`, the demo's."""
    return VideoMllamaConfig.from_dict(compose(["stage=pt2", "model=small", "run_dir=unused"]).model)


class Training:
    """A variant with its optimizer, ready to step."""

    def __init__(self, config: VideoMllamaConfig, variant: Variant, layout: ParallelLayout, steps: int) -> None:
        self.config, self.layout = config, layout
        self.models = build(config, variant, layout, cross_attention="auto")
        initialise_weights(self.models.chunks, self.models.vision, config, 7)
        set_cross_gates(self.models.chunks, 0.3)
        precision = PrecisionConfig(dtype=variant.dtype, fp8=variant.fp8, fp8_vision=variant.fp8_vision)
        self.optimization = Optimization(
            self.models.chunks, self.models.unit, self.models.transformer_config, layout, OptimizerConfig(), precision
        )
        encode = EncodeSettings(keep_frames=-1, chunk=32)
        settings = StepSettings(silence_token_weight=1.0, silence_id=None, encode=encode, dataset_names=("synthetic",))
        self.step = DecoupledStep(self.models, self.optimization, layout, settings)
        self._rate = LearningRate("cosine", LEARNING_RATE, 0.0, 0.05, steps)

    def update(self, index: int) -> float:
        """One optimizer step; returns the loss before it."""
        batches = [learnable_pack(self.config, 1000 * index + i, ROWS) for i in range(2)]
        loss = self.step.accumulate(batches).loss
        rate = self._rate(index)
        self.optimization.set_learning_rates(rate, rate)
        self.optimization.update()
        return loss


def measure(layout: ParallelLayout, steps: int, variants: Sequence[Variant] = VARIANTS) -> dict[str, Any]:
    """Loss of every step, by variant, and how the curves differ from Transformer Engine's in bf16.

    Returns:
        by variant: `losses`; `last`, the mean of the last tenth; `seconds` of a step and `peak_gib`, both after the first tenth;
        `mean_difference` of the losses from the bf16 curve's, over all steps.
    """
    config = small_config()
    found: dict[str, Any] = {}
    tenth = max(steps // 10, 1)
    for variant in variants:
        training = Training(config, variant, layout, steps)
        losses = [training.update(i) for i in range(tenth)]
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        losses += [training.update(i) for i in range(tenth, steps)]
        torch.cuda.synchronize()
        found[variant.name] = {
            "losses": [round(loss, 5) for loss in losses],
            "last": fmean(losses[-tenth:]),
            "seconds": (time.perf_counter() - begin) / max(steps - tenth, 1),
            "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
        }
        del training
        forget_engine()
    base = found[ENGINE.name]["losses"]
    for curve in found.values():
        curve["mean_difference"] = fmean(abs(a - b) for a, b in zip(curve["losses"], base, strict=True))
    return found
