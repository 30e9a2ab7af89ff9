"""On a GPU: once their kernels are made, encode and decode never wait for the device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from model.conversion import load_hf_weights
from model.fp8 import transformer_engine_problem
from model.text.provider import ModuleProvider, torch_provider, transformer_engine_provider
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig
from moss_train.engines.models import build_models
from moss_train.engines.optimization import Optimization
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world
from moss_train.platform.device import resolve_device
from tests.model.small import lively_weights
from tests.moss_train.packs import DATASETS, make_pack, tiny_config
from tests.moss_train.updates import make_step

pytestmark = pytest.mark.gpu


@pytest.fixture
def layout() -> Iterator[ParallelLayout]:
    stop_layout()
    device = resolve_device("auto")
    start_world(device)
    yield start_layout(ParallelConfig(), device, seed=1)
    stop_layout()


def _provider(modules: str) -> ModuleProvider:
    if modules == "torch":
        return torch_provider()
    problem = transformer_engine_problem()
    if problem is not None:
        pytest.skip(problem)
    return transformer_engine_provider()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("modules", ["torch", "transformer_engine"])
def test_neither_encode_nor_decode_waits_for_the_device(layout: ParallelLayout, modules: str, train: bool) -> None:
    config = tiny_config()
    models = build_models(config, layout, dtype="bf16", provider=_provider(modules))
    load_hf_weights(models.chunks, models.vision, lively_weights(config, 0))
    optimizer, precision = OptimizerConfig(name="adam"), PrecisionConfig(dtype="bf16")
    optimization = Optimization(models.chunks, models.unit, models.transformer_config, layout, optimizer, precision)
    step = make_step(models, optimization, layout, keep=2)
    samples = [[(9, 2), (6, 1)], [(12, 0)], [(5, 3)]]
    first = step.accumulate([make_pack(config, i, drawn, 32) for i, drawn in enumerate(samples)])  # kernels are made
    assert first.targets > 0
    batches = [make_pack(config, 10 + i, drawn, 32) for i, drawn in enumerate(samples)]
    optimization.zero()
    with torch.set_grad_enabled(train):
        factor = step._count_targets(batches).clamp(min=1).reciprocal() if train else None
        torch.cuda.set_sync_debug_mode("error")
        try:
            step.frames.encode(batches, train=train)
            sums = step._decode(batches, DATASETS, factor, forward_only=not train)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert int(sums.vector[1]) == sum(batch.num_targets for batch in batches)
    found = models.chunks[0].output_layer.weight.main_grad.float().norm()
    assert bool(found > 0) == train
