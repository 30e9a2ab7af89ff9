"""Run on 4 ranks: every choice of optimizer in several layouts, compared with one rank.

Usage: optimizer_ranks REFERENCE_FILE LAYOUT... as in `moss verify layouts`; `tp2:muon,modules` runs some cases only.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from model.conversion import gather_hf_weights, load_hf_weights
from moss_train.config.optimizer import ModuleConfig
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig, StageConfig
from moss_train.engines.models import Models, build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.engines.optimizer.modules import named
from moss_train.engines.optimizer.states import fp32_weight
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.verify.layouts.compare import distance
from tests.moss_train.packs import tiny_config
from tests.moss_train.updates import LEARNING_RATE, global_batch, initial_weights, layout_sizes, make_step

UPDATES = 2
"""The second begins with the states that the first left."""

MODULES = [
    ModuleConfig(name="text", learning_rate_multiplier=0.5, weight_decay=0.3),
    ModuleConfig(name="head", learning_rate_multiplier=0.25),
    ModuleConfig(name="projector", learning_rate_multiplier=3.0),
    ModuleConfig(name="norms", weight_decay=0.2),
    ModuleConfig(name="upper", pattern=r"layers\.[23]\..*(gate|up)_proj", learning_rate_multiplier=2.0),
]
COMMON: dict[str, Any] = {"clip_grad": 0.5, "weight_decay": 0.01, "eps": 1e-3}
CASES = {
    "modules": OptimizerConfig(modules=MODULES, **COMMON),
    "ema": OptimizerConfig(ema_decay=0.9, **COMMON),
    "momentum": OptimizerConfig(name="sgd", distributed=False, momentum=0.9, **COMMON),
    "muon": OptimizerConfig(name="muon", distributed=False, momentum=0.95, modules=MODULES[:2], **COMMON),
    "bf16 moments": OptimizerConfig(moments="bf16", beta2=0.98, **COMMON),
}


def build(layout: ParallelLayout, settings: OptimizerConfig, dtype: str = "fp32") -> tuple[Models, Optimization]:
    """The model with weights that depend on names alone, all of it trained."""
    models = build_models(tiny_config(), layout, dtype=dtype)
    load_hf_weights(models.chunks, models.vision, initial_weights(models))
    freeze(models, StageConfig(name="test", trainable="all"))
    precision = PrecisionConfig(dtype=dtype)
    return models, Optimization(models.chunks, models.unit, models.transformer_config, layout, settings, precision)


def owned_states(optimization: Optimization, models: Models, name: str) -> dict[str, list[tuple[int, torch.Tensor]]]:
    """A state of the distributed optimizers: the ranges that this rank owns, by the parameter's name over the whole model."""
    found = {}
    for optimizer in optimization.optimizer.chained_optimizers:
        for key, parameter in named(models.chunks, models.unit):
            if parameter in getattr(optimizer, "model_param_group_index_map", {}):
                group, order = optimizer.model_param_group_index_map[parameter]
                main = optimizer.optimizer.param_groups[group]["params"][order]
                state = optimizer.optimizer.state[main]
                values = fp32_weight(main, state) if name == "weight" else state[name]
                begin = optimizer._get_model_param_range_map(parameter)["param"].start
                found[key] = [(begin, values.detach().clone())]
    return found


def whole_states(optimization: Optimization, models: Models, name: str) -> dict[str, torch.Tensor]:
    """The same, put together over ranks that share nothing but data parallelism."""
    everywhere: list[dict[str, list[tuple[int, torch.Tensor]]]] = [{}] * dist.get_world_size()
    dist.all_gather_object(everywhere, owned_states(optimization, models, name))
    ranges: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for held in everywhere:
        for key, parts in held.items():
            ranges.setdefault(key, []).extend(parts)
    return {key: torch.cat([values for _, values in sorted(parts, key=lambda p: p[0])]) for key, parts in ranges.items()}


def run(layout: ParallelLayout, case: str) -> dict[str, Any]:
    """A few updates: losses, norms, weights, and averages where they can be put together."""
    models, optimization = build(layout, CASES[case])
    step = make_step(models, optimization, layout, 1)
    result: dict[str, Any] = {"loss": [], "norm": []}
    for i in range(UPDATES):
        batches = global_batch(i)
        own = len(batches) // layout.data_size
        statistics = step.accumulate(batches[layout.place.data * own : (layout.place.data + 1) * own])
        optimization.set_learning_rates(LEARNING_RATE, LEARNING_RATE / 2)
        result["norm"].append(optimization.update())
        result["loss"].append(statistics.loss)
    result["weights"] = gather_hf_weights(models.chunks, models.vision)
    if case == "ema" and layout.sizes.tensor == 1:
        result["ema"] = whole_states(optimization, models, "ema")
    groups = [g for o in optimization.optimizer.chained_optimizers for g in o.param_groups]
    result["groups"] = [(g["lr"], g["weight_decay"]) for g in groups]
    return result


def reference_runs(path: Path) -> None:
    """Every case on one rank, into a file."""
    device = resolve_device("auto")
    start_world(device)
    layout = start_layout(ParallelConfig(), device, seed=1)
    torch.save({case: run(layout, case) for case in CASES}, path)
    stop_layout()
    stop_world()


def compare(got: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
    """Relative differences from the single rank's."""
    report: dict[str, Any] = {
        key: max(abs(a - b) / abs(b) for a, b in zip(got[key], want[key], strict=True)) for key in ("loss", "norm")
    }
    report["weights"] = distance(got["weights"], want["weights"])
    if "ema" in got:
        report["ema"] = distance(got["ema"], want["ema"])
    report["groups"] = got["groups"] == want["groups"]
    return report


def main(reference: Path, names: list[str]) -> None:
    """Every layout and case in one process; the report is the last line of rank 0."""
    torch.set_num_threads(1)
    device = resolve_device("auto")
    start_world(device)
    expected = torch.load(reference, weights_only=False)
    results: dict[str, Any] = {}
    for name in names:
        sizes, _, only = name.partition(":")
        layout = start_layout(layout_sizes(sizes), device, seed=1)
        for case in only.split(",") if only else CASES:
            result = run(layout, case)
            if dist.get_rank() == 0:
                results[f"{sizes}/{case}"] = compare(result, expected[case])
        stop_layout()
    if dist.get_rank() == 0:
        print("REPORT " + json.dumps(results), flush=True)
    dist.barrier()
    stop_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
