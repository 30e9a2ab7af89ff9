"""The step's gradients are those of the mean loss, and no pass over the buffers makes them so."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data_pipeline.packing.batch import IGNORE_INDEX, PackedMicroBatch
from model.conversion import load_hf_weights
from model.rows import PackedRows
from moss_train.config.schema import OptimizerConfig, ParallelConfig, PrecisionConfig
from moss_train.engines.models import Models, build_models
from moss_train.engines.optimization import Optimization
from moss_train.parallel.layout import ParallelLayout, start_layout, stop_layout
from moss_train.parallel.world import start_world, stop_world
from moss_train.step import DecoupledStep
from tests.model.small import lively_weights
from tests.moss_train.packs import SILENCE, make_pack, tiny_config
from tests.moss_train.updates import make_step

WEIGHT = 0.1  # of silence, in `make_step`


@pytest.fixture(scope="module")
def layout() -> Iterator[ParallelLayout]:
    device = torch.device("cpu")
    start_world(device)
    yield start_layout(ParallelConfig(), device, seed=1)
    stop_layout()
    stop_world()


def _models(layout: ParallelLayout) -> Models:
    config = tiny_config()
    models = build_models(config, layout)
    load_hf_weights(models.chunks, models.vision, lively_weights(config, 0))
    return models


@pytest.fixture(scope="module")
def bare(layout: ParallelLayout) -> Models:
    """The same weights without gradient buffers."""
    return _models(layout)


@pytest.fixture(scope="module")
def parts(layout: ParallelLayout) -> tuple[Models, Optimization, DecoupledStep]:
    models = _models(layout)
    optimizer, precision = OptimizerConfig(name="sgd", distributed=False), PrecisionConfig(dtype="fp32")
    optimization = Optimization(models.chunks, models.unit, models.transformer_config, layout, optimizer, precision)
    return models, optimization, make_step(models, optimization, layout, keep=2)


def _parameters(models: Models) -> dict[str, torch.nn.Parameter]:
    return {**dict(models.chunks[0].named_parameters()), **dict(models.vision.named_parameters(prefix="vision"))}


def _expected(models: Models, batches: list[PackedMicroBatch]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients by one graph of autograd from pixels to the mean over all targets."""
    total, targets = torch.zeros(()), 0
    for batch in batches:
        states = models.vision(batch.frames, batch.aspect_ratio_ids) if batch.num_frames else None
        losses = models.chunks[0](PackedRows.of(batch), states)
        weights = torch.where(batch.targets == SILENCE, WEIGHT, 1.0) * (batch.targets != IGNORE_INDEX)
        total = total + (losses * weights).sum()
        targets += batch.num_targets
    mean = total / max(targets, 1)
    named = _parameters(models)
    gradients = torch.autograd.grad(mean, list(named.values()), allow_unused=True)
    found = {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), gradients, strict=True)}
    return float(mean.detach()), found


SAMPLE = st.tuples(st.integers(3, 9), st.integers(0, 2))


@given(
    samples=st.lists(st.lists(SAMPLE, min_size=1, max_size=2), min_size=1, max_size=3),
    silent=st.floats(0, 1),
    kept=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=12, deadline=None)
def test_gradients_are_of_the_mean_over_all_targets(
    parts: tuple[Models, Optimization, DecoupledStep], bare: Models, samples: list[list[tuple[int, int]]], silent: float,
    kept: float, seed: int,
) -> None:  # fmt: skip
    models, _, step = parts
    batches = [make_pack(models.config, seed + i, drawn, 32) for i, drawn in enumerate(samples)]
    generator = torch.Generator().manual_seed(seed)
    for batch in batches:
        wanted = batch.targets != IGNORE_INDEX
        batch.targets[wanted & (torch.rand(batch.num_rows, generator=generator) < silent)] = SILENCE
        batch.targets[torch.rand(batch.num_rows, generator=generator) >= kept] = IGNORE_INDEX
    loss, expected = _expected(bare, batches)
    statistics = step.accumulate(batches)
    assert statistics.targets == sum(batch.num_targets for batch in batches)
    assert statistics.loss == pytest.approx(loss, rel=1e-5, abs=1e-7)
    largest = max(float(value.norm()) for value in expected.values())
    for name, parameter in _parameters(models).items():
        main: torch.Tensor = parameter.main_grad  # type: ignore[attr-defined]
        torch.testing.assert_close(main, expected[name], rtol=1e-5, atol=1e-5 * max(largest, 1e-30), msg=name)


class _Passes(TorchDispatchMode):
    """Names of operations that take the whole of one of the buffers."""

    def __init__(self, buffers: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._places = {buffer.data_ptr(): buffer.numel() for buffer in buffers}
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves(args):
            if func.namespace != "c10d" and isinstance(leaf, torch.Tensor) and self._places.get(leaf.data_ptr()) == leaf.numel():
                self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("recipe", [None, "tensorwise", "delayed"])
def test_only_delayed_scaling_divides_whole_buffers(
    parts: tuple[Models, Optimization, DecoupledStep], layout: ParallelLayout, recipe: str | None
) -> None:
    models, optimization, plain = parts
    batches = [make_pack(models.config, 5, [(9, 2), (6, 1)], 24), make_pack(models.config, 6, [(12, 0)], 24)]
    plain.accumulate(batches)
    expected = {name: parameter.main_grad.clone() for name, parameter in _parameters(models).items()}  # type: ignore[attr-defined]
    # The step reads the recipe; the decoder's own config, which would ask for fp8 products, stays as it is.
    told = copy.copy(models)
    told.transformer_config = copy.copy(models.transformer_config)
    told.transformer_config.fp8 = None if recipe is None else "hybrid"
    told.transformer_config.fp8_recipe = recipe or "delayed"
    step = make_step(told, optimization, layout, keep=2)
    models.transformer_config.finalize_model_grads_func = told.transformer_config.finalize_model_grads_func
    buffers = [b.grad_data for module in (*optimization.decoder, optimization.vision) for b in module.buffers]
    with _Passes(buffers) as passes:
        step.accumulate(batches)
    assert len(buffers) == 2
    assert passes.names == ["zero_"] * 2 + (["_foreach_mul_"] * 2 if recipe == "delayed" else [])
    largest = max(float(value.norm()) for value in expected.values())
    for name, parameter in _parameters(models).items():
        main: torch.Tensor = parameter.main_grad  # type: ignore[attr-defined]
        torch.testing.assert_close(main, expected[name], rtol=1e-5, atol=1e-6 * largest, msg=name)
