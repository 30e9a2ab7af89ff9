"""Run on ranks: gradient norms by module of one step in each layout, as JSON.

Usage: gradient_norm_ranks LAYOUT... , names as in `moss verify layouts`.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import sys
from typing import Any

from moss_train import platform

platform.install()


from model.conversion import load_hf_weights
from moss_train.config.schema import LoraConfig, PrecisionConfig, StageConfig
from moss_train.engines.adapters import adapt
from moss_train.engines.models import build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.feed.feed import Delivery
from moss_train.monitors.base import Update
from moss_train.monitors.gradient_norms import GradientNorms
from moss_train.parallel.layout import ParallelLayout
from tests.moss_train.layout_cases import run_cases
from tests.moss_train.packs import tiny_config
from tests.moss_train.updates import OPTIMIZERS, global_batch, initial_weights, make_step

CASES = {
    "adam": ("all", "adam", LoraConfig()),
    "sgd": ("all", "sgd", LoraConfig()),
    "projector": ("projector_only", "adam", LoraConfig()),
    "text": ("text_only", "sgd", LoraConfig()),
    "adapters": ("all", "adam", LoraConfig(rank=2, alpha=2.0)),
}


def norms(layout: ParallelLayout, case: str) -> dict[str, Any]:
    """Of the first step: the global norm, and those by module."""
    preset, optimizer, lora = CASES[case]
    stage = StageConfig(name="test", trainable=preset)
    models = build_models(tiny_config(), layout)
    load_hf_weights(models.chunks, models.vision, initial_weights(models))
    adapt(models, lora, stage, seed=1)
    freeze(models, stage, lora)
    optimization = Optimization(
        models.chunks, models.unit, models.transformer_config, layout, OPTIMIZERS[optimizer], PrecisionConfig(dtype="fp32")
    )
    monitor = GradientNorms(models, optimization, layout, every=10)
    batches = global_batch(0)
    own = len(batches) // layout.data_size
    statistics = make_step(models, optimization, layout, 1).accumulate(
        batches[layout.place.data * own : (layout.place.data + 1) * own]
    )
    update = Update(1, Delivery(batches, {}, 1, 1, 0.0, 0.0), statistics, optimization.prepare(), {})
    monitor.prepared(update)
    first = monitor.measured(update)["grad_norms"]
    update.step = 2
    monitor.prepared(update)
    assert monitor.measured(update) == {}  # only each tenth, after the first
    return {"whole": update.grad_norm, "modules": first}


if __name__ == "__main__":
    run_cases("NORMS", sys.argv[1:], CASES, norms)
