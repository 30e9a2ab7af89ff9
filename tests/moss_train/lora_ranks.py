"""Run by torchrun: gradients and weights of adapters in a layout, compared with one rank's; checkpoints between layouts.

Usage: lora_ranks REFERENCE_FILE FOLDER LAYOUT... as in `moss verify layouts`; `tp2:text` runs one case, `tp2.full` computes the
decoder's layers again in the backward pass. The first layout also saves in the middle, the last one continues from there.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from model.conversion import gather_hf_weights, load_hf_weights
from model.conversion.fusion import put_together
from model.conversion.table import Rule
from model.lora.attach import adapted_layers, place_adapters
from moss_train.checkpoint.adapters import read_adapters
from moss_train.checkpoint.description import CheckpointDescription, find_checkpoint
from moss_train.checkpoint.load import load_training_state
from moss_train.checkpoint.save import save_checkpoint
from moss_train.config.schema import LoraConfig, OptimizerConfig, ParallelConfig, PrecisionConfig, StageConfig
from moss_train.engines.adapters import adapt
from moss_train.engines.models import Models, build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.verify.layouts.compare import distance
from tests.moss_train.packs import tiny_config
from tests.moss_train.updates import (
    LEARNING_RATE,
    OPTIMIZERS,
    STEPS,
    global_batch,
    initial_weights,
    layout_sizes,
    make_step,
)

ALL = [
    "attention_qkv", "attention_proj", "cross_q", "cross_kv", "cross_proj", "mlp_fc1", "mlp_fc2",
    "vision_attention", "vision_mlp",
]  # fmt: skip
CASES = {
    "everywhere": ("all", LoraConfig(rank=3, alpha=4.5, targets=ALL, train_also=["projector", "gates", "norms"])),
    "cross": ("vision+projector+xattn", LoraConfig(rank=2, alpha=2.0, targets=["cross_q", "cross_kv", "mlp_fc1"])),
    "text": ("text_only", LoraConfig(rank=3, alpha=1.0, targets=["attention_qkv", "attention_proj", "mlp_fc2"])),
}
"""Preset and adapters: in every layer with all that may train beside them; where vision is frozen; in the text alone."""


def lively(name: str, factor: str, shape: tuple[int, int]) -> torch.Tensor:
    """Whole factors without zeros, from the name alone."""
    seed = sum(ord(letter) * (i + 1) for i, letter in enumerate(name + factor))
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def whole_factors(models: Models, read: Any) -> dict[str, torch.Tensor]:
    """What `read` takes of every factor, put together from all ranks; rank 0 uses it."""
    own: dict[str, tuple[int, Rule | None, str, torch.Tensor, torch.Tensor]] = {}
    for layer in adapted_layers(models.chunks, models.vision):
        adapter = layer.adapter
        rank = 0 if adapter.group is None else adapter.group.rank()
        own[layer.name] = rank, layer.rule, adapter.kind, read(adapter.a).clone(), read(adapter.b).clone()
    everywhere: list[dict[str, Any]] = [{}] * dist.get_world_size()
    dist.all_gather_object(everywhere, own)
    found = {}
    for name in sorted({name for held in everywhere for name in held}):
        shares = {held[name][0]: held[name] for held in everywhere if name in held}
        _, rule, kind, a, b = shares[0]
        for share in shares.values():  # the factor that is whole is the same on every rank of the layer's group
            assert torch.equal(share[4], b) if kind == "row" else torch.equal(share[3], a), name
        found[f"{name}:a"] = torch.cat([shares[r][3] for r in sorted(shares)], dim=1) if kind == "row" else a
        found[f"{name}:b"] = put_together(rule, [shares[r][4] for r in sorted(shares)]) if kind == "column" and rule else b
    return found


def stored_factors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The same as `whole_factors` of the parameters, from a checkpoint's files."""
    found = {}
    for name, factors in read_adapters(checkpoint).items():
        found[f"{name.removeprefix('vision.')}:a"], found[f"{name.removeprefix('vision.')}:b"] = factors.a, factors.b
    return found


def gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    """Zero where the parameter is frozen."""
    return parameter.main_grad if hasattr(parameter, "main_grad") else torch.zeros_like(parameter, dtype=torch.float32)


def build(layout: ParallelLayout, case: str, optimizer: OptimizerConfig) -> tuple[Models, Optimization]:
    """The adapted model with weights and factors that depend on names alone."""
    preset, lora = CASES[case]
    stage = StageConfig(name="test", trainable=preset)
    models = build_models(tiny_config(), layout)
    load_hf_weights(models.chunks, models.vision, initial_weights(models))
    adapt(models, lora, stage, seed=1)
    freeze(models, stage, lora)
    place_adapters(models.chunks, models.vision, lively)
    precision = PrecisionConfig(dtype="fp32")
    return models, Optimization(models.chunks, models.unit, models.transformer_config, layout, optimizer, precision)


def run(
    layout: ParallelLayout, case: str, optimizer: OptimizerConfig, save: Path | None = None, resume: Path | None = None
) -> dict[str, Any]:
    """A few updates; losses, norms, first gradients (unsharded buffers only), final adapters and weights.

    Args:
        save: run folder for a checkpoint before the last update.
        resume: run folder whose checkpoint replaces all updates but the last.
    """
    models, optimization = build(layout, case, optimizer)
    step = make_step(models, optimization, layout, 1)
    result: dict[str, Any] = {"loss": [], "norm": []}
    first = 0
    if resume is not None:
        first = load_training_state(find_checkpoint(resume), models.chunks, models.unit, optimization, layout).step
    for i in range(first, STEPS):
        if save is not None and i == STEPS - 1:
            description = CheckpointDescription(step=i, model=dataclasses.asdict(models.config))
            path = save_checkpoint(save, description, models.chunks, models.unit, optimization, layout)
            result["stored"] = distance(stored_factors(path), whole_factors(models, lambda parameter: parameter.data))
        batches = global_batch(i)
        own = len(batches) // layout.data_size
        statistics = step.accumulate(batches[layout.place.data * own : (layout.place.data + 1) * own])
        if i == 0 and not optimizer.distributed:
            result["gradients"] = whole_factors(models, gradient)
            result["base_gradients"] = gather_hf_weights(models.chunks, models.vision, gradient)
        optimization.set_learning_rates(LEARNING_RATE, LEARNING_RATE)
        result["norm"].append(optimization.update())
        result["loss"].append(statistics.loss)
    result["weights"] = whole_factors(models, lambda parameter: parameter.data)
    result["base_weights"] = gather_hf_weights(models.chunks, models.vision)
    return result


def compare(got: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
    """Relative differences of a run from the single rank's."""
    last = len(got["loss"])
    report: dict[str, Any] = {
        key: max(abs(a - b) / abs(b) for a, b in zip(got[key], want[key][-last:], strict=True)) for key in ("loss", "norm")
    }
    report |= {key: got[key] for key in ("stored",) if key in got}
    for key in ("gradients", "base_gradients", "weights", "base_weights"):
        if key in want:
            assert got[key].keys() == want[key].keys()
            report[key] = distance(got[key], want[key])
    if "gradients" in want:
        squares = sum(float(g.double().square().sum()) for key in ("gradients", "base_gradients") for g in got[key].values())
        report["own_norm"] = abs(got["norm"][0] / squares**0.5 - 1)
        report["moving"] = sum(bool(g.abs().sum() > 0) for g in want["gradients"].values()), len(want["gradients"])
        report["base_moving"] = sum(bool(g.abs().sum() > 0) for g in want["base_gradients"].values())
    return report


RUNS = [("everywhere", "sgd"), ("everywhere", "adam"), ("cross", "sgd"), ("text", "sgd")]
"""Case and optimizer."""


def reference_runs(path: Path) -> None:
    """Every case on one rank, into a file."""
    device = resolve_device("auto")
    start_world(device)
    layout = start_layout(ParallelConfig(), device, seed=1)
    torch.save({f"{case}/{kind}": run(layout, case, OPTIMIZERS[kind]) for case, kind in RUNS}, path)
    stop_layout()
    stop_world()


def main(reference: Path, folder: Path, names: list[str]) -> None:
    """Every layout, case and optimizer in one process; the report is the last line of rank 0."""
    torch.set_num_threads(1)
    device = resolve_device("auto")
    start_world(device)
    expected = torch.load(reference, weights_only=False)
    results: dict[str, Any] = {}
    for name in names:
        sizes, _, only = name.partition(":")
        sizes, full, _ = sizes.partition(".full")
        layout = start_layout(dataclasses.replace(layout_sizes(sizes), recompute="full" if full else "none"), device, seed=1)
        for case, kind in RUNS:
            if only in ("", case):
                result = run(layout, case, OPTIMIZERS[kind], save=folder if (name, kind) == (names[0], "adam") else None)
                if dist.get_rank() == 0:
                    results[f"{name}/{case}/{kind}"] = compare(result, expected[f"{case}/{kind}"])
        if name == names[-1]:
            result = run(layout, "everywhere", OPTIMIZERS["adam"], resume=folder)
            if dist.get_rank() == 0:
                results["continued"] = compare(result, expected["everywhere/adam"])
        stop_layout()
    if dist.get_rank() == 0:
        print("REPORT " + json.dumps(results), flush=True)
    dist.barrier()
    stop_world()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
