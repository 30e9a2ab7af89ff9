"""The reference's way, made of our modules: the same losses and gradients as a run's step, nothing kept but layers' inputs."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch

from data_pipeline.packing.batch import PackedMicroBatch
from model.attention import cores
from model.attention.cross.attention import cross_attention
from model.vision.layers import VisionLayer
from moss_train.bench.reference.samples import alone, mixture_samples, one_sample
from moss_train.bench.reference.way import OVERRIDES, ReferenceWay
from moss_train.bench.subject import Subject, overrides_of
from moss_train.config.compose import compose

CPU = torch.device("cpu")
THERE = compose(overrides_of("pt2", model="tiny", precision="fp32", more=OVERRIDES))
HERE = compose(overrides_of("pt2", model="tiny", precision="fp32"))


def names(made: Subject) -> dict[str, torch.nn.Parameter]:
    modules = [*made.models.chunks, made.models.unit]
    return {f"{place}.{name}": p for place, m in enumerate(modules) for name, p in m.named_parameters() if p.requires_grad}


def theirs(made: Subject, batch: PackedMicroBatch) -> tuple[float, dict[str, torch.Tensor | None]]:
    loss = made.train([batch]).loss
    return loss, {name: None if p.grad is None else p.grad.clone() for name, p in names(made).items()}


def ours(batch: PackedMicroBatch) -> tuple[float, dict[str, torch.Tensor]]:
    made = Subject(HERE, CPU, updates=False)
    try:
        loss = made.train([batch]).loss
        return loss, {name: p.main_grad.clone() for name, p in names(made).items()}
    finally:
        made.close()


@pytest.mark.parametrize(("rows", "frames"), [(48, 5), (33, 1), (24, 0)])
def test_losses_and_every_gradient_are_those_of_our_step(rows: int, frames: int) -> None:
    made = ReferenceWay(THERE, CPU)
    try:
        batch = one_sample(made.model_config, rows, frames)
        loss, gradients = theirs(made, batch)
    finally:
        made.close()
    wanted_loss, wanted = ours(batch)
    assert loss == pytest.approx(wanted_loss, rel=1e-6) and gradients.keys() == wanted.keys() and len(wanted) > 50
    for name, gradient in gradients.items():
        got = torch.zeros_like(wanted[name]) if gradient is None else gradient
        scale = max(float(wanted[name].abs().max()), 1e-3)
        torch.testing.assert_close(
            got / scale, wanted[name] / scale, atol=1e-5, rtol=1e-5, msg=lambda m, name=name: f"{name}: {m}"
        )
    assert sum(bool(gradient.any()) for gradient in wanted.values()) > (50 if frames else 20)


def test_rows_that_fill_up_a_batch_change_nothing() -> None:
    made = ReferenceWay(THERE, CPU)
    try:
        samples = [s for s in mixture_samples("sft_realtime", 8) if s.rows % 8 and s.frames < 40][:2]
        assert samples
        for sample, batch in zip(samples, alone(made.model_config, samples), strict=True):
            assert batch.num_rows % 8 == 0 and batch.num_rows > sample.rows
            assert batch.num_targets == sample.rows - sample.frames - 1
    finally:
        made.close()


def test_each_sample_is_a_step_of_its_own() -> None:
    made = ReferenceWay(THERE, CPU)
    try:
        first, last = (one_sample(made.model_config, rows, 3, seed) for rows, seed in ((40, 0), (32, 1)))
        _, alone_ = theirs(made, last)
        made.train([first, last])
        both = {name: p.grad for name, p in names(made).items()}
    finally:
        made.close()
    for name, gradient in alone_.items():
        assert gradient is not None
        torch.testing.assert_close(both[name], gradient)


def test_layers_run_twice_under_one_dense_mask() -> None:
    made = ReferenceWay(THERE, CPU)
    try:
        config = made.model_config
        calls = 0

        def count(*_: object) -> None:
            nonlocal calls
            calls += 1

        for module in made.models.vision.modules():
            if isinstance(module, VisionLayer):
                module.register_forward_pre_hook(count)  # the second run ends within the layer
        batch = one_sample(config, 40, 4)
        with patch.object(cores, "cross_attention", wraps=cross_attention) as attention:
            made.train([batch])
        layers = config.vision.num_hidden_layers + config.vision.num_global_layers
        assert calls == 2 * layers, "every layer of the tower is computed again"
        used = attention.call_args_list
        assert len(used) == 2 * len(config.text.cross_attention_layers) and {call.kwargs["backend"] for call in used} == {"dense"}
        plans = {id(call.args[3]) for call in used}
        assert len(plans) == 1 and list(used[0].args[3].cache) == [("dense", torch.float32)]
    finally:
        made.close()
