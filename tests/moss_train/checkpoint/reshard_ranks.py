"""Run on two ranks: a state goes from layout to layout, each time through a checkpoint, and stays the same bit for bit.

Usage: reshard_ranks FOLDER
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from model.conversion import load_hf_weights
from model.conversion.stream import whole_parameter
from moss_train.checkpoint.collect import described
from moss_train.checkpoint.description import CheckpointDescription
from moss_train.checkpoint.load import load_training_state
from moss_train.checkpoint.optimizer_state import MASTER, PREFIX, REMAINDER, initialise_states, optimizer_states
from moss_train.checkpoint.save import save_checkpoint
from moss_train.checkpoint.tensors import CheckpointTensors
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig
from moss_train.engines.models import Models, build_models
from moss_train.engines.optimization import Optimization
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from tests.moss_train.packs import tiny_config
from tests.moss_train.updates import initial_weights

CASES: dict[str, tuple[str, list[tuple[ParallelConfig, OptimizerConfig]]]] = {}


def _chain(*rows: tuple[dict[str, int], dict[str, object]]) -> list[tuple[ParallelConfig, OptimizerConfig]]:
    return [(ParallelConfig(**sizes), OptimizerConfig(**optimizer)) for sizes, optimizer in rows]  # type: ignore[arg-type]


TP, PP, CP = {"tensor": 2}, {"pipeline": 2}, {"context": 2}
VPP = {"pipeline": 2, "virtual_pipeline": 2}
WHOLE: dict[str, object] = {"distributed": False}
CASES["fp32"] = "fp32", _chain((TP, {}), (VPP, {}), ({}, {}), (TP, WHOLE), (CP, {}), ({}, WHOLE))
CASES["bf16"] = "bf16", _chain((VPP, {}), ({}, {}), (TP, WHOLE), (PP, {}), (TP, {}))
SMALL: dict[str, object] = {"moments": "bf16", "master": "remainders", "ema_decay": 0.9}
CASES["small states"] = "bf16", _chain(({}, SMALL), (TP, SMALL), (VPP, SMALL), ({}, SMALL))


def build(layout: ParallelLayout, dtype: str, optimizer: OptimizerConfig) -> tuple[Models, Optimization]:
    models = build_models(tiny_config(), layout, dtype=dtype)
    load_hf_weights(models.chunks, models.vision, initial_weights(models))
    precision = PrecisionConfig(dtype=dtype)
    return models, Optimization(models.chunks, models.unit, models.transformer_config, layout, optimizer, precision)


def fill_with_known(optimization: Optimization) -> None:
    """Moments that follow from the weight beside them, so that a stored file shows whether all is in its place."""
    optimizers = optimization.optimizer.chained_optimizers
    initialise_states(optimizers)
    for state in optimizer_states(optimizers):
        count = next(iter(state.tensors.values())).numel()
        own = state.parameter.detach().reshape(-1)[state.begin : state.begin + count]
        for name, values in state.tensors.items():
            values.copy_(_known(name, own).view(values.shape))


def _known(name: str, weight: torch.Tensor) -> torch.Tensor:
    if name == REMAINDER:
        return (weight.float() * 1000).to(torch.int16)
    factor = {"exp_avg": 2.0, "exp_avg_sq": -4.0, "ema": 0.5, MASTER: 1.0 + 2.0**-12}[name]
    return weight.float() * factor  # exact in bf16 but for the master weights, which differ from bf16 ones in their lower half


def spoil(models: Models, optimization: Optimization) -> None:
    """What is not loaded shows."""
    for module in (*models.chunks, models.unit):
        for parameter in module.parameters():
            parameter.data.fill_(7.0)
    optimizers = optimization.optimizer.chained_optimizers
    initialise_states(optimizers)
    for state in optimizer_states(optimizers):
        for values in state.tensors.values():
            values.fill_(7)


def whole(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint; padded rows of the vocabulary, which depend on the layout, left out."""
    tensors = CheckpointTensors(folder)
    rows = tiny_config().text.vocab_size
    found = {key: whole_parameter(tensors, key) for key in tensors.keys()}  # noqa: SIM118
    return {key: t[:rows] if key.endswith("output_layer.weight") else t for key, t in found.items()}


def run(case: str, folder: Path) -> list[str]:
    """What differs, after every layout."""
    dtype, chain = CASES[case]
    expected: dict[str, torch.Tensor] = {}
    faults = []
    before: Path | None = None
    for number, (sizes, optimizer) in enumerate(chain):
        layout = start_layout(sizes, torch.device("cpu"), seed=1)
        models, optimization = build(layout, dtype, optimizer)
        if before is None:
            fill_with_known(optimization)
            optimization.updates = 5
        else:
            spoil(models, optimization)
            load_training_state(before, models.chunks, models.unit, optimization, layout)
            if optimization.updates != 5:
                faults.append(f"{case} {number}: {optimization.updates} updates")
        description = described(CheckpointDescription(step=number, model=dataclasses.asdict(models.config)), optimization, layout)
        before = save_checkpoint(folder, description, models.chunks, models.unit, optimization, layout, keep_last=99)
        found = whole(before)
        if not expected:
            expected = found
            faults += [f"{case}: {key}" for key, t in found.items() if key.startswith(PREFIX) and not _right(key, t, found)]
        faults += [f"{case} {number}: {key}" for key in expected.keys() ^ found.keys()]
        faults += [f"{case} {number}: {key} differs" for key, t in found.items() if not _same(t, expected.get(key))]
        stop_layout()
    dist.barrier()
    return faults if expected and any(key.startswith(PREFIX) for key in expected) else [f"{case}: nothing stored"]


def _right(key: str, values: torch.Tensor, found: dict[str, torch.Tensor]) -> bool:
    state, _, weight = key.removeprefix(PREFIX).partition(".")
    return torch.equal(values, _known(state, found[weight]).to(values.dtype))


def _same(values: torch.Tensor, expected: torch.Tensor | None) -> bool:
    return expected is not None and values.dtype == expected.dtype and torch.equal(values, expected)


def main() -> None:
    start_world(torch.device("cpu"))
    faults = {case: run(case, Path(sys.argv[1]) / case) for case in CASES}
    if dist.get_rank() == 0:
        print("REPORT " + json.dumps(faults), flush=True)
    stop_world()


if __name__ == "__main__":
    main()
