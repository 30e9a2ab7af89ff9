"""A whole update of a small model, its Adam and norm in Triton, beside megatron-core's norm, clip and Adam."""

# ruff: noqa: E402 - the platform comes before everything of megatron-core
from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from moss_train import platform

platform.install()

import pytest
import torch

from model.conversion import load_hf_weights
from model.kernels.select import Form
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig, StageConfig
from moss_train.engines.models import build_models, freeze
from moss_train.engines.optimization import Optimization
from moss_train.engines.optimizer.states import main_weights
from moss_train.parallel.layout import start_layout, stop_layout
from moss_train.parallel.world import start_world
from moss_train.platform.device import resolve_device
from tests.inference.kernels.forms.where import INTERPRETED  # which corrects the interpreter
from tests.moss_train.engines.optimizer_ranks import COMMON
from tests.moss_train.packs import tiny_config
from tests.moss_train.updates import LEARNING_RATE, initial_weights

CHOICES: dict[str, tuple[dict[str, Any], str]] = {
    "fp32 run": ({}, "fp32"),
    "not distributed": ({"distributed": False}, "fp32"),
    "bf16 run": ({}, "bf16"),
    "remainders": ({"master": "remainders"}, "bf16"),
    "lean": ({"master": "remainders", "moments": "bf16", "beta2": 0.98, "ema_decay": 0.9}, "bf16"),
}


def _updated(
    values: dict[str, Any], dtype: str, clip: float, form: Form
) -> tuple[list[float], list[float], list[torch.Tensor], bool]:
    """Norms of two updates with made-up gradients, as told and in fp64, the fp32 weights after them, and whether the gradients
    stayed."""
    stop_layout()
    device = resolve_device("auto")
    start_world(device)
    layout = start_layout(ParallelConfig(), device, 1)
    models = build_models(tiny_config(), layout, dtype=dtype)
    load_hf_weights(models.chunks, models.vision, initial_weights(models))
    freeze(models, StageConfig(name="test", trainable="all"))
    settings = OptimizerConfig(**(COMMON | values | {"clip_grad": clip}))
    reduce_fp32 = values.get("moments") != "bf16"
    precision = PrecisionConfig(dtype=dtype, grad_reduce_fp32=reduce_fp32)
    optimization = Optimization(models.chunks, models.unit, models.transformer_config, layout, settings, precision, form)
    assert all(optimization._one_pass.drives(each) == (form == "triton") for each in optimization.optimizer.chained_optimizers)
    made = torch.Generator().manual_seed(0)
    norms, exact, same = [], [], True
    for _ in range(2):  # the second by moments that the first left
        optimization.zero()
        for module in (*optimization.decoder, optimization.vision):
            for buffer in module.buffers:
                buffer.grad_data.copy_(torch.randn(buffer.grad_data.numel(), generator=made) * 1e-2)
        slopes = [p.main_grad for chunk in (*models.chunks, models.unit) for p in chunk.parameters() if p.requires_grad]
        exact.append(sum(float(slope.double().square().sum()) for slope in slopes) ** 0.5)
        before = [buffer.grad_data.clone() for buffer in optimization.decoder[0].buffers]
        optimization.set_learning_rates(LEARNING_RATE, LEARNING_RATE)
        norms.append(optimization.update())
        same &= all(torch.equal(a, b.grad_data) for a, b in zip(before, optimization.decoder[0].buffers, strict=True))
    weights = [weight.float().cpu().clone() for _, weight in main_weights(optimization.optimizer.chained_optimizers)]
    assert optimization.updates == 2
    stop_layout()
    return norms, exact, weights, same


@pytest.fixture(scope="module", autouse=True)
def modules_stay() -> Iterator[None]:
    """Every end of a layout collects garbage; it need not look at what was imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


# A clip is one factor more for every choice alike: without one, a GPU tries them all, the interpreter the first.
UNCLIPPED = list(CHOICES)[:1] if INTERPRETED else list(CHOICES)


@pytest.mark.parametrize(("choice", "clip"), [*((choice, 0.5) for choice in CHOICES), *((choice, 0.0) for choice in UNCLIPPED)])
def test_the_update_is_megatron_cores(choice: str, clip: float) -> None:
    values, dtype = CHOICES[choice]
    norms, exact, weights, same = _updated(values, dtype, clip, "triton")
    expected_norms, _, expected, _ = _updated(values, dtype, clip, "torch")
    rounded = values.get("moments") == "bf16"  # and gradients too, whose squares torch on a CPU sums in bf16
    assert norms == pytest.approx(exact, rel=1e-6)
    assert norms == pytest.approx(expected_norms, rel=3e-3 if rounded else 1e-5)
    assert expected_norms[0] > 0.5  # clipped where a clip is asked for
    assert same
    # a clipped gradient in bf16 is rounded there and here is not; so may a moment in bf16 be
    for ours, theirs in zip(weights, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-6, atol=2e-2 * LEARNING_RATE if rounded else 1e-6)
