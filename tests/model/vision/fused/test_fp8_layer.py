"""The tower's layers with fp8 products, on a CPU: the same rounded numbers, multiplied in fp32."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import VisionConfig
from model.errors import InputError
from model.vision.encoder import VisionEncoder
from model.vision.fused.fp8_products import Fp8Products, use_fp8_products
from model.vision.fused.layer import fused_layer
from model.vision.fused.levels import KEPT, use_layers
from model.vision.layers import VisionLayer
from tests.model.small import small_config

both = pytest.mark.parametrize("kind", ["fp8", "bf16"])


def _layer(kind: Any, gated: bool = False) -> VisionLayer:
    torch.manual_seed(0)
    config = VisionConfig(hidden_size=64, num_attention_heads=4, intermediate_size=256)
    layer = VisionLayer(config, gated).bfloat16()
    layer.products = kind and Fp8Products(kind)
    return layer


def _numbers(seed: int, *size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).bfloat16()


def _run(layer: VisionLayer, x: Tensor, gradient: Tensor, level: str = "all") -> dict[str, Tensor]:
    layer.zero_grad()
    x = x.detach().clone().requires_grad_()
    output = fused_layer(layer, x, level)
    output.backward(gradient)
    assert x.grad is not None
    # Without the way past the branches, which is exact and would hide their errors.
    found = {"output": output.detach().float() - x.detach().float(), "x": x.grad.float() - gradient.float()}
    return found | {name: p.grad.float() for name, p in layer.named_parameters() if p.grad is not None}


@both
@pytest.mark.parametrize("gated", [False, True])
def test_output_and_gradients_are_near(kind: Any, gated: bool) -> None:
    x, gradient = _numbers(1, 3, 50, 64), _numbers(2, 3, 50, 64) * 1e-4
    found = _run(_layer(kind, gated), x, gradient)
    exact = _run(_layer(None, gated).float(), x.float(), gradient.float())
    assert found.keys() == exact.keys()
    for name, expected in exact.items():
        if not name.startswith("gate"):  # sums that cancel
            assert (found[name] - expected).norm() < 0.12 * expected.norm(), name


@both
@pytest.mark.parametrize("gated", [False, True])
def test_every_level_gives_the_same_bits(kind: Any, gated: bool) -> None:
    x, gradient = _numbers(3, 2, 21, 64), _numbers(4, 2, 21, 64)
    layer = _layer(kind, gated)
    expected = _run(layer, x, gradient)
    for level in KEPT:
        found = _run(layer, x, gradient, level)
        assert all(torch.equal(found[name], wanted) for name, wanted in expected.items()), level


def test_a_frame_has_the_same_bits_in_every_chunk() -> None:
    layer, x = _layer("fp8"), _numbers(5, 4, 21, 64)
    x[2] *= 300
    with torch.no_grad():
        assert torch.equal(torch.cat([fused_layer(layer, part) for part in x.split(1)]), fused_layer(layer, x))


def test_frozen_parameters_have_no_gradient() -> None:
    x, gradient = _numbers(6, 2, 9, 64), _numbers(7, 2, 9, 64)
    layer = _layer("fp8", True)
    everything = _run(layer, x, gradient)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_("k_proj" in name or "fc2" in name)
    found = _run(layer, x, gradient)
    assert {name for name in found if "." in name} == {"self_attn.k_proj.weight", "mlp.fc2.weight", "mlp.fc2.bias"}
    assert all(torch.equal(found[name], everything[name]) for name in found)


def test_an_amount_that_leaps_between_steps_meets_no_old_scale() -> None:
    layer, x, gradient = _layer("fp8"), _numbers(8, 2, 9, 64), _numbers(9, 2, 9, 64)
    for factor in (1.0, 1e3, 1e-3, 0.0):
        with torch.no_grad():
            layer.mlp.fc1.weight *= factor or 1
        found = _run(layer, x * factor, gradient * factor)
        assert all(value.isfinite().all() for value in found.values()), factor


def _train(layer: VisionLayer, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        optimizer.zero_grad()
        output = fused_layer(layer, _numbers(step, 2, 9, 64), "input")
        loss = (output.float() - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_training_that_goes_on_from_a_checkpoint_is_training_that_was_not_interrupted() -> None:
    layer = _layer("fp8")
    optimizer = torch.optim.AdamW(layer.parameters(), lr=3e-3)
    losses = _train(layer, optimizer, range(10))
    assert losses[-1] < 0.9 * losses[0]
    saved = copy.deepcopy((layer.state_dict(), optimizer.state_dict()))
    straight = _train(layer, optimizer, range(10, 15))
    other = _layer("fp8")
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=3e-3)
    other.load_state_dict(saved[0])
    other_optimizer.load_state_dict(saved[1])
    assert _train(other, other_optimizer, range(10, 15)) == straight


def test_a_tower_keeps_names_and_computes_in_fp8() -> None:
    config = small_config()
    encoder = VisionEncoder(config).bfloat16()
    names = list(encoder.state_dict())
    use_layers(encoder, "fused")
    pixels = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    ids = torch.ones(3, dtype=torch.int64)
    plain = encoder(pixels, ids).float()
    use_fp8_products(encoder, config)
    assert list(encoder.state_dict()) == names
    rounded = encoder(pixels, ids).float()
    assert 0.002 < (rounded - plain).norm() / plain.norm() < 0.1
    assert all(isinstance(m.products, Fp8Products) for m in encoder.modules() if isinstance(m, VisionLayer))


def test_widths_that_fp8_does_not_take_are_refused() -> None:
    config = small_config()
    narrow = dataclasses.replace(config, vision=dataclasses.replace(config.vision, intermediate_size=72))
    with pytest.raises(InputError, match=r"fp8_vision is on, but vision\.intermediate_size is 72"):
        use_fp8_products(VisionEncoder(narrow), narrow)
