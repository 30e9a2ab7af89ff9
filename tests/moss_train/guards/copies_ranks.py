"""Run on ranks: copies of parameters compared after real updates in each layout, and after a bit was flipped on one rank.

Usage: copies_ranks LAYOUT... , names as in `moss verify layouts`.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import sys
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from model.conversion import load_hf_weights
from moss_train.config.schema import LoraConfig, PrecisionConfig, StageConfig
from moss_train.engines.adapters import adapt
from moss_train.engines.models import build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.feed.agreement import CommonError
from moss_train.guards.copies import Copies
from moss_train.parallel.layout import ParallelLayout
from tests.moss_train.layout_cases import run_cases
from tests.moss_train.packs import tiny_config
from tests.moss_train.updates import OPTIMIZERS, global_batch, initial_weights, make_step

CASES = {
    "fp32": (LoraConfig(), "fp32", "adam"),
    "bf16": (LoraConfig(), "bf16", "adam"),
    "adapters": (LoraConfig(rank=2, alpha=2.0), "fp32", "sgd"),
}


def outcome(copies: Copies, step: int) -> str:
    """The sentence, equal on all ranks; empty where all copies are equal."""
    try:
        copies.stepped({"step": step})
        sentence = ""
    except CommonError as error:
        sentence = str(error)
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, sentence)
    assert len(set(everyone)) == 1, everyone
    return sentence


def compare(layout: ParallelLayout, case: str) -> dict[str, Any]:
    """After two updates, and after one flipped bit for each kind of sharing."""
    lora, dtype, optimizer = CASES[case]
    stage = StageConfig(name="test", trainable="all")
    models = build_models(tiny_config(), layout, dtype=dtype)
    load_hf_weights(models.chunks, models.vision, initial_weights(models))
    adapt(models, lora, stage, seed=1)
    freeze(models, stage, lora)
    optimization = Optimization(
        models.chunks, models.unit, models.transformer_config, layout, OPTIMIZERS[optimizer], PrecisionConfig(dtype=dtype)
    )
    step = make_step(models, optimization, layout, 1)
    for number in range(2):
        batches = global_batch(number)
        own = len(batches) // layout.data_size
        step.accumulate(batches[layout.place.data * own : (layout.place.data + 1) * own])
        optimization.set_learning_rates(1e-2, 1e-2)
        optimization.update()
    copies = Copies(models.chunks, models.unit, layout, every=5)
    found = {"equal": outcome(copies, 5), "groups": [len(shared.names) for shared in copies._shared]}
    for kind, shared in enumerate(copies._shared):
        flat = shared.parameters[-1].detach().view(-1).view(torch.int16 if dtype == "bf16" else torch.int32)
        if layout.rank == layout.world_size - 1:
            flat[-1] ^= 1
        found[f"flipped_{kind}"] = [shared.names[-1], outcome(copies, 10)]
        if layout.rank == layout.world_size - 1:
            flat[-1] ^= 1
    found["between"] = outcome(copies, 11)
    found["equal_again"] = outcome(copies, 15)
    return found


if __name__ == "__main__":
    run_cases("COPIES", sys.argv[1:], CASES, compare)
