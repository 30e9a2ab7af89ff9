"""What tests share that update a tiny model in a layout: its weights, a global batch, the step, the layout of a name."""

from __future__ import annotations

import torch

from data_pipeline.packing.batch import PackedMicroBatch
from model.conversion.table import hf_shapes
from moss_train.config.schema import OptimizerConfig, ParallelConfig
from moss_train.engines.models import Models
from moss_train.engines.optimization import Optimization
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.layout import ParallelLayout
from moss_train.step import DecoupledStep, StepSettings
from moss_train.verify.layouts.names import parse_layout
from moss_train.verify.layouts.subject import SAMPLES
from tests.moss_train.packs import DATASETS, SILENCE, make_pack, tiny_config

STEPS = 3
LEARNING_RATE = 1e-2
OPTIMIZERS = {
    "sgd": OptimizerConfig(name="sgd", distributed=False, clip_grad=0.5, weight_decay=0.01),
    # A large epsilon: with 1e-8 the first updates are signs of gradients, which rounding can flip where they are 0.
    "adam": OptimizerConfig(name="adam", distributed=True, clip_grad=0.5, weight_decay=0.01, eps=1e-3),
}


def layout_sizes(name: str) -> ParallelConfig:
    """Sizes of `tp2.sp` and the like."""
    return parse_layout(name).sizes


def initial_weights(models: Models) -> dict[str, torch.Tensor]:
    """Whole tensors that depend on nothing but their names and shapes."""
    weights = {}
    for i, (name, shape) in enumerate(sorted(hf_shapes(models.config).items())):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(1000 + i)) * 0.15
        weights[name] = values + 1 if "norm" in name and name.endswith("weight") else values + 0.5 if "gate" in name else values
    return weights


def global_batch(step: int) -> list[PackedMicroBatch]:
    """The same micro-batches whoever asks."""
    return [make_pack(tiny_config(), 10 * step + i, samples, 24) for i, samples in enumerate(SAMPLES)]


def make_step(models: Models, optimization: Optimization, layout: ParallelLayout, keep: int) -> DecoupledStep:
    """A step that keeps the state of `keep` frames."""
    encode = EncodeSettings(keep_frames=keep, chunk=2, again_chunk=2)
    return DecoupledStep(models, optimization, layout, StepSettings(0.1, SILENCE, encode, DATASETS))
