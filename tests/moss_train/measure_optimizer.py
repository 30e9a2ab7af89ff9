"""Run on a GPU: `python -m tests.moss_train.measure_optimizer OUT.json` writes what docs/benchmarks/optimizer.md shows.

Losses are of the demo's model, bytes and milliseconds of the same with width 1024, both in bf16 on one rank.
"""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import dataclasses
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

from moss_train import platform

platform.install()

import torch

from model.config import VideoMllamaConfig
from model.initialise import initialise_weights, set_cross_gates
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig
from moss_train.engines.models import build_models
from moss_train.engines.optimization import Optimization
from moss_train.engines.optimizer.bytes import optimizer_bytes
from moss_train.frames.settings import EncodeSettings
from moss_train.parallel.layout import ParallelLayout, start_layout
from moss_train.parallel.world import start_world
from moss_train.platform.device import resolve_device
from moss_train.step import DecoupledStep, StepSettings
from moss_train.verify.engine.curves import ROWS, learnable_pack, small_config

QUICK: dict[str, Any] = {"beta2": 0.98}
CHOICES: dict[str, tuple[dict[str, Any], bool]] = {
    "default": ({}, True),
    "bf16 gradients": ({}, False),
    "remainders": ({"master": "remainders"}, True),
    "beta2 0.98": (QUICK, True),
    "bf16 moments": ({"moments": "bf16", **QUICK}, True),
    "bf16 moments, remainders": ({"moments": "bf16", "master": "remainders", **QUICK}, True),
    "bf16 moments, remainders, bf16 gradients": ({"moments": "bf16", "master": "remainders", **QUICK}, False),
    "fp8 moments": ({"moments": "fp8", **QUICK}, True),
    "fp8 moments, remainders": ({"moments": "fp8", "master": "remainders", **QUICK}, True),
    "offload 1": ({"offload": 1.0}, True),
    "offload 0.5": ({"offload": 0.5}, True),
    "average": ({"ema_decay": 0.9}, True),
    "muon": ({"name": "muon", "distributed": False, "momentum": 0.95}, True),
}
"""Values of the optimizer group, and whether gradients are summed in fp32."""


def run(layout: ParallelLayout, config: VideoMllamaConfig, name: str, steps: int, peak: float) -> dict[str, Any]:
    """Updates of one choice: losses, milliseconds of an update, bytes a parameter."""
    values, fp32 = CHOICES[name]
    settings, precision = OptimizerConfig(**values), PrecisionConfig(dtype="bf16", grad_reduce_fp32=fp32)
    gc.collect()
    torch.cuda.empty_cache()
    torch.manual_seed(0)
    before = torch.cuda.memory_allocated()
    models = build_models(config, layout, dtype="bf16")
    initialise_weights(models.chunks, models.vision, config, 7)
    set_cross_gates(models.chunks, 0.3)
    optimization = Optimization(models.chunks, models.unit, models.transformer_config, layout, settings, precision)
    encode = EncodeSettings(keep_frames=-1, chunk=32)
    step = DecoupledStep(models, optimization, layout, StepSettings(1.0, None, encode, ("synthetic",)))
    losses, seconds, temporary = [], [], 0
    for i in range(steps):
        losses.append(step.accumulate([learnable_pack(config, 1000 * i + k, ROWS) for k in range(2)]).loss)
        rate = peak * min(1.0, (i + 1) / 5)
        optimization.set_learning_rates(rate, rate)
        optimization.prepare()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        resting, begin = torch.cuda.memory_allocated(), time.perf_counter()
        optimization.apply()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
        temporary = torch.cuda.max_memory_allocated() - resting
    optimization.zero()
    count = sum(p.numel() for m in (*models.chunks, models.unit) for p in m.parameters())
    vision = sum(p.numel() for p in models.unit.parameters())
    text, tower = optimizer_bytes(settings, precision), optimizer_bytes(settings, precision, vision=True)
    stated = sum(n * (b.on_device() - b.temporary) for n, b in ((count - vision, text), (vision, tower))) / count
    return {
        "parameters": count, "losses": losses, "update_milliseconds": 1000 * sorted(seconds)[steps // 2], "stated_bytes": stated,
        "measured_bytes": (torch.cuda.memory_allocated() - before) / count, "temporary_bytes": temporary / count,
    }  # fmt: skip


def main(out: Path) -> None:
    device = resolve_device("auto")
    start_world(device)
    layout = start_layout(ParallelConfig(), device, 1)
    small = small_config()
    text = dataclasses.replace(
        small.text, hidden_size=1024, intermediate_size=4096, num_attention_heads=16, num_key_value_heads=8
    )
    wide = dataclasses.replace(small, text=text)
    found = {}
    for name in CHOICES:
        found[name] = {"small": run(layout, small, name, 60, 2e-3), "wide": run(layout, wide, name, 3, 1e-4)}
        print(name, {key: value for key, value in found[name]["wide"].items() if key != "losses"}, flush=True)
    out.write_text(json.dumps({"hardware": torch.cuda.get_device_name(), "torch": torch.__version__, "choices": found}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
