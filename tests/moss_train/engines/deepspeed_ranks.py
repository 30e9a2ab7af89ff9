"""Run on two ranks: the DeepSpeed engine beside megatron-core's data parallel one. Rank 0 prints what was found after `REPORT `.

Usage: deepspeed_ranks DATA FOLDER STEPS
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import gc
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch
import torch.distributed as dist

from data_pipeline.packing.batch import PackedMicroBatch
from model.conversion import load_hf_weights
from moss_train.config.schema import RunConfig
from moss_train.engines.deepspeed.optimization import DeepSpeedOptimization
from moss_train.engines.deepspeed.step import DeepSpeedStep
from moss_train.engines.models import build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.evaluation.held_out import HeldOut
from moss_train.frames.settings import EncodeSettings
from moss_train.guards.rewind import rewind
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.platform.device import resolve_device
from moss_train.setup import Session, start_session
from moss_train.step import DecoupledStep, StepSettings
from moss_train.trainer import Trainer
from tests.moss_train.packs import DATASETS, SILENCE, make_pack, tiny_config
from tests.moss_train.runs import run_config
from tests.moss_train.updates import initial_weights

COPIES = {"guard__check_copies_every": 3}
ENGINES: dict[str, dict[str, Any]] = {
    "megatron": {},
    # The stages differ in what else they do, so that every setting runs somewhere; 0: stage 3 cuts even the smallest weight.
    "zero1": {"engine": "deepspeed", "deepspeed__zero_stage": 1, "vision__keep_activations_gib": -1.0, **COPIES},
    "zero2": {"engine": "deepspeed", "deepspeed__zero_stage": 2, "deepspeed__offload_optimizer": "cpu", **COPIES},
    "zero3": {"engine": "deepspeed", "deepspeed__zero_stage": 3, "deepspeed__param_persistence_threshold": 0},
}


def close(session: Session) -> None:
    """So that the next run can start in these processes."""
    if isinstance(session.optimization, DeepSpeedOptimization):
        session.optimization.close()
    stop_layout()


def run(data: Path, folder: Path, engine: str, steps: int, rewinds: bool = False) -> list[dict[str, Any]]:
    """A run to its end, and its records without times; `rewinds`: and back to its first checkpoint, in the same processes.

    It saves and measures the held-out loss in the middle and at the end.
    """
    half = steps // 2
    values: dict[str, Any] = {"train__global_batch_size": 4, "stage__learning_rate": 1e-3, "logging__gradient_norms_every": 1}
    values |= {"train__save_every": half, "train__eval_every": half, **ENGINES[engine]}
    session = start_session(run_config(data, folder, steps=steps, **values))
    Trainer(session).run()
    if rewinds:
        rewind(session, folder / "checkpoints" / f"step_{half:08d}", "a test")
        held_out = HeldOut.make(session)
        assert held_out is not None
        again = held_out.run(half)["eval_loss"]
        with (folder / "rewound.json").open("w") as file:
            json.dump(again, file)
    close(session)
    dist.barrier()
    names = ("step", "grad_norm", "grad_norms", "learning_rate", "targets", "tokens", "frames", "samples")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key in names or "loss" in key} for row in rows]


def second_half(data: Path, folder: Path, begun: Path, engine: str, steps: int) -> list[dict[str, Any]]:
    """The run of another folder as if it had been killed after its first checkpoint, continued by an engine in this folder."""
    half = steps // 2
    if dist.get_rank() == 0:
        shutil.copytree(begun, folder)
        shutil.rmtree(folder / "checkpoints" / f"step_{steps:08d}")
        (folder / "latest").write_text(f"step_{half:08d}")
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        (folder / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= half))
    dist.barrier()
    return run(data, folder, engine, steps)


def uneven_batch(step: int) -> list[PackedMicroBatch]:
    """Two micro-batches of this rank; one rank has frames where the other has text alone."""
    packs = [[[(9, 3), (4, 2)], [(12, 0)]], [[(16, 0)], [(12, 0)]]]
    seed = 10 * step + 5 * dist.get_rank()
    return [make_pack(tiny_config(), seed + i, samples, 24) for i, samples in enumerate(packs[dist.get_rank()])]


def uneven(config: RunConfig) -> dict[str, Any]:
    """Three steps of uneven ranks, the second of which is not applied; norms, losses and weights at the end."""
    layout = start_layout(config.parallel, resolve_device("cpu"), seed=1)
    models = build_models(tiny_config(), layout, dtype="fp32")
    load_hf_weights(models.chunks, models.vision, initial_weights(models))
    freeze(models, config.stage)
    settings = StepSettings(0.1, SILENCE, EncodeSettings(chunk=2), DATASETS)
    optimization: Any
    step: Any
    if config.engine == "deepspeed":
        optimization = DeepSpeedOptimization(models, config, 2, layout.device)
        step = DeepSpeedStep(models, optimization, layout, settings)
    else:
        optimization = Optimization(
            models.chunks, models.unit, models.transformer_config, layout, config.optimizer, config.precision
        )
        step = DecoupledStep(models, optimization, layout, settings)
    losses, norms = [], []
    for number in range(3):
        losses.append(step.accumulate(uneven_batch(number)).loss)
        optimization.set_learning_rates(1e-2, 5e-3)
        norms.append(optimization.prepare())
        if number != 1:
            optimization.apply()
    parameters = [parameter for module in (*models.chunks, models.unit) for parameter in module.parameters()]
    if config.engine == "deepspeed":
        optimization.zero()
        import deepspeed

        with deepspeed.zero.GatheredParameters(parameters, enabled=optimization.stage == 3):
            weights = [parameter.detach().double().clone() for parameter in parameters]
        optimization.close()
    else:
        weights = [parameter.detach().double().clone() for parameter in parameters]
    stop_layout()
    return {"losses": losses, "norms": norms, "updates": optimization.updates, "weights": weights}


def main(data: str, folder: str, steps: int) -> None:
    """All comparisons in one start of processes."""
    gc.collect()
    gc.freeze()  # the modules that DeepSpeed brings, at which every end of a layout would look again
    root, out = Path(data), Path(folder)
    start_world(resolve_device("cpu"))
    report: dict[str, Any] = {"runs": {name: run(root, out / name, name, steps, rewinds=name == "zero3") for name in ENGINES}}
    report["rewound"] = json.loads((out / "zero3" / "rewound.json").read_text())
    report["again"] = second_half(root, out / "again", out / "zero3", "zero3", steps)
    report["switched"] = {
        f"{first}-{second}": second_half(root, out / f"{first}-{second}", out / first, second, steps)
        for first, second in (("megatron", "zero2"), ("zero3", "megatron"))
    }
    report["uneven"] = {}
    reference = uneven(run_config(root, out / "none", optimizer__eps=1e-3, optimizer__weight_decay=0.01))
    for name in ("zero1", "zero2", "zero3"):
        found = uneven(run_config(root, out / "none", optimizer__eps=1e-3, optimizer__weight_decay=0.01, **ENGINES[name]))
        found["distance"] = max(
            float((a - b).abs().max()) for a, b in zip(reference["weights"], found.pop("weights"), strict=True)
        )
        report["uneven"][name] = found
    reference.pop("weights")
    report["uneven"]["megatron"] = reference
    if dist.get_rank() == 0:
        print("REPORT " + json.dumps(report), flush=True)
    stop_world()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
