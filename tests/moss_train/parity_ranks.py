"""Run by torchrun: gradients and weights of a layout for every freeze preset, saved or compared with one rank's.

Usage: parity_ranks REFERENCE_FILE LAYOUT... with a layout as `tp2`, `tp2.sp`, `pp2`, `pp2.vpp2`, `dp2`, `tp2.pp2`, `one`;
data parallel takes the rest of the world. `tp2:all` runs the preset `all` only, `pp2:all@3` with one cross layer, at 3.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import dataclasses
import json
import sys
import zlib
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from data_pipeline.packing.batch import PackedMicroBatch
from model.conversion import gather_hf_weights, load_hf_weights
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig, StageConfig
from moss_train.dense_step import DenseStep
from moss_train.engines.models import Models, build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.step import DecoupledStep, StepSettings
from tests.moss_train.packs import DATASETS, SILENCE, make_pack, tiny_config

PRESETS = ("projector_only", "vision+projector+xattn", "all", "vision_tower", "text_only")
DENSE = "dense_labels"
"""Stands among the presets for the patch classifier's objective."""
DENSE_CLASSES = 5
ONE_CROSS_LAYER = ("projector_only@3", "vision+projector+xattn@1")
"""Models in which one of two pipeline stages has no cross layer: a stage that trains nothing, or gets no gradient."""
STEPS = 3
LEARNING_RATE = 1e-2
SAMPLES = [[(9, 3), (4, 0)], [(16, 0)], [(5, 7), (3, 1)], [(14, 1)]]
"""Global batch: unequal frames and targets, one micro-batch of text alone."""


def parse_layout(text: str) -> ParallelConfig:
    """`tp2.sp` -> tensor 2 with sequence parallelism."""
    names = {"tp": "tensor", "vpp": "virtual_pipeline", "pp": "pipeline"}
    values: dict[str, Any] = {}
    for part in text.split("."):
        if part == "sp":
            values["sequence_parallel"] = True
        for short, name in names.items():
            if part.rstrip("0123456789") == short:
                values[name] = int(part[len(short) :])
    return ParallelConfig(**values)


def initial_weights(models: Models) -> dict[str, torch.Tensor]:
    """Whole tensors that depend on nothing but their names and shapes."""
    from model.conversion.table import hf_shapes

    weights = {}
    for i, (name, shape) in enumerate(sorted(hf_shapes(models.config).items())):
        values = torch.randn(shape, generator=torch.Generator().manual_seed(1000 + i)) * 0.15
        weights[name] = values + 1 if "norm" in name and name.endswith("weight") else values + 0.5 if "gate" in name else values
    return weights


def global_batch(step: int) -> list[PackedMicroBatch]:
    """The same micro-batches whoever asks."""
    return [make_pack(tiny_config(), 10 * step + i, samples, 24, DENSE_CLASSES) for i, samples in enumerate(SAMPLES)]


def watch_tower(models: Models) -> list[int]:
    """A list that grows by a fingerprint of each frame that this rank's tower really encodes."""
    seen: list[int] = []

    def note(module: torch.nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        seen.extend(zlib.crc32(frame.contiguous().cpu().numpy().tobytes()) for frame in arguments[0].detach())

    models.vision.vision_model.register_forward_pre_hook(note)
    return seen


def gradients(models: Models) -> dict[str, torch.Tensor] | None:
    """Whole gradients by published name, on rank 0."""

    def of(parameter: torch.nn.Parameter) -> torch.Tensor:
        return parameter.main_grad if hasattr(parameter, "main_grad") else torch.zeros_like(parameter, dtype=torch.float32)

    return gather_hf_weights(models.chunks, models.vision, of)


Step = DecoupledStep | DenseStep


def make_step(models: Models, optimization: Optimization, layout: ParallelLayout, dense: bool, keep: int) -> Step:
    """The step of an objective."""
    if dense:
        return DenseStep(models, optimization, layout, chunk=2)
    encode = EncodeSettings(keep_frames=keep, chunk=2, again_chunk=2)
    return DecoupledStep(models, optimization, layout, StepSettings(0.1, SILENCE, encode, DATASETS))


def run(layout: ParallelLayout, preset: str, optimizer: OptimizerConfig, keep: int) -> dict[str, Any]:
    """A few updates; on rank 0 the losses, norms, first gradients (unsharded buffers only) and final weights."""
    dense = preset == DENSE
    preset, _, cross = preset.partition("@")
    config = tiny_config((int(cross),)) if cross else tiny_config()
    models = build_models(config, layout, dense_classes=DENSE_CLASSES if dense else None)
    load_hf_weights(models.chunks, models.vision, initial_weights(models))
    freeze(models, StageConfig(name="test", trainable="vision_tower" if dense else preset))
    seen = watch_tower(models)
    precision = PrecisionConfig(dtype="fp32")
    optimization = Optimization(models.chunks, models.unit, models.transformer_config, layout, optimizer, precision)
    step = make_step(models, optimization, layout, dense, keep)
    result: dict[str, Any] = {"loss": [], "norm": [], "encoded": [], "again": [], "seen": []}
    for i in range(STEPS):
        batches = global_batch(i)
        own = len(batches) // layout.data_size
        statistics = step.accumulate(batches[layout.place.data * own : (layout.place.data + 1) * own])
        if i == 0 and not optimizer.distributed:
            result["gradients"] = gradients(models)
        optimization.set_learning_rates(LEARNING_RATE, LEARNING_RATE)
        result["norm"].append(optimization.update())
        result["loss"].append(statistics.loss)
        result["encoded"].append(statistics.encoded_by_rank)
        result["again"].append(statistics.encoded_again)
        everywhere: list[list[int]] = [[]] * layout.world_size
        dist.all_gather_object(everywhere, list(seen))
        result["seen"].append(everywhere)
        seen.clear()
        result["statistics"] = dataclasses.asdict(statistics)
    result["weights"] = gather_hf_weights(models.chunks, models.vision)
    return result


OPTIMIZERS = {
    "sgd": OptimizerConfig(name="sgd", distributed=False, clip_grad=0.5, weight_decay=0.01),
    # A large epsilon: with 1e-8 the first Adam updates are signs of gradients, which rounding can flip where they are 0.
    "adam": OptimizerConfig(name="adam", distributed=True, clip_grad=0.5, weight_decay=0.01, eps=1e-3),
}


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> tuple[float, str]:
    """Largest relative difference in norm over the tensors, and its name; both zero counts as equal."""
    worst = (0.0, "")
    for name, reference in theirs.items():
        norm, difference = reference.double().norm().item(), (ours[name].double() - reference.double()).norm().item()
        relative = difference / norm if norm > 0 else difference
        worst = max(worst, (relative, name))
    return worst


def compare(got: dict[str, Any], want: dict[str, Any]) -> dict[str, Any]:
    """Relative differences of a run from the single rank's."""
    report = {
        "loss": max(abs(a - b) / abs(b) for a, b in zip(got["loss"], want["loss"], strict=True)),
        "norm": max(abs(a - b) / abs(b) for a, b in zip(got["norm"], want["norm"], strict=True)),
        "weights": distance(got["weights"], want["weights"]),
        "encoded": got["encoded"],
        "again": got["again"],
        "towers": [[len(frames) for frames in ranks] for ranks in got["seen"]],
        "distinct": [len({frame for frames in ranks for frame in frames}) for ranks in got["seen"]],
        "statistics": max(
            (
                abs(got["statistics"][group][name] - value)
                for group in ("class_loss", "dataset_loss")
                for name, value in want["statistics"][group].items()
            ),
            default=abs((got["statistics"]["accuracy"] or 0) - (want["statistics"]["accuracy"] or 0)),
        ),
    }
    if "gradients" in want:
        report["gradients"] = distance(got["gradients"], want["gradients"])
        report["trained"] = sum(bool(g.abs().sum() > 0) for g in want["gradients"].values())
    return report


def main(reference: str, names: list[str]) -> None:
    """Every layout, preset and optimizer in one process; the report is the last line of rank 0."""
    torch.set_num_threads(1)
    device = resolve_device("auto")
    start_world(device)
    expected = torch.load(reference, weights_only=False) if Path(reference).exists() else {}
    results: dict[str, Any] = {}
    for name in names:
        layout = start_layout(parse_layout(name.partition(":")[0]), device, seed=1)
        only = name.partition(":")[2]
        for preset in (only,) if only else (*PRESETS, DENSE, *(ONE_CROSS_LAYER if name == "one" else ())):
            for kind, optimizer in OPTIMIZERS.items():
                keep = 1 if preset == "all" and kind == "sgd" else -1
                result = run(layout, preset, optimizer, keep)
                if dist.get_rank() == 0:
                    key = f"{preset}/{kind}"
                    if name == "one":
                        results[key] = result
                    else:
                        results[f"{name}/{key}"] = compare(result, expected[key])
        stop_layout()
    if dist.get_rank() == 0:
        if names == ["one"]:
            torch.save(results, reference)
        else:
            print("REPORT " + json.dumps(results), flush=True)
    dist.barrier()
    stop_world()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
