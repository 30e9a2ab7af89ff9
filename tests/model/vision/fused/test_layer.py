"""The fused layer against the same layer run operator by operator: output, every gradient, what it keeps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.config import VisionConfig
from model.vision.fused.attention import choose
from model.vision.fused.layer import fused_layer
from model.vision.fused.levels import KEPT
from model.vision.layers import VisionLayer

LEVELS = tuple(KEPT)


def _layer(gated: bool, width: int = 32, heads: int = 4, inner: int = 48, dtype: torch.dtype = torch.float32) -> VisionLayer:
    torch.manual_seed(0)
    config = VisionConfig(hidden_size=width, num_attention_heads=heads, intermediate_size=inner)
    layer = VisionLayer(config, gated)
    for parameter in layer.parameters():
        if parameter.dim() == 1 and parameter.numel() > 1:  # norms and biases that do something
            nn.init.normal_(parameter, mean=float(parameter.detach().mean().round()), std=0.3)
    return layer.to(dtype)


def _entry(layer: VisionLayer, frames: int = 3, tokens: int = 11) -> Tensor:
    weight = layer.input_layernorm.weight
    numbers = torch.randn(frames, tokens, weight.shape[0], generator=torch.Generator().manual_seed(1))
    return numbers.to(weight.device, weight.dtype).requires_grad_()


def _gradients(output: Tensor, layer: VisionLayer, x: Tensor) -> dict[str, Tensor | None]:
    """By name, that of the entry as x; in fp32 those of the buffers where there are any."""
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(2)).to(output)
    (output * weights).sum().backward()
    found = {name: getattr(p, "main_grad", p.grad) for name, p in layer.named_parameters()}
    return {"x": x.grad, **found}


def _both(layer: VisionLayer, level: str, x: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """Output and gradients, operator by operator and fused."""
    other, y = copy.deepcopy(layer), x.detach().clone().requires_grad_(x.requires_grad)
    for mine, theirs in zip(layer.parameters(), other.parameters(), strict=True):
        if hasattr(mine, "main_grad"):
            theirs.main_grad = torch.zeros_like(mine.main_grad)  # type: ignore[attr-defined]
    expected_output, output = layer(x), fused_layer(other, y, level)
    found = _gradients(output, other, y)
    assert all(p.grad is None for p in other.parameters() if hasattr(p, "main_grad")), "autograd was told a gradient too"
    for parameter in layer.parameters():
        if hasattr(parameter, "main_grad"):
            del parameter.main_grad
    expected = _gradients(expected_output, layer, x)
    return {"output": expected_output.detach(), **expected}, {"output": output.detach(), **found}


def _assert_same(expected: dict[str, Any], found: dict[str, Any], tolerance: float = 1e-5) -> None:
    assert expected.keys() == found.keys()
    for name, wanted in expected.items():
        got = found[name]
        assert (got is None) == (wanted is None), name
        if wanted is not None:
            torch.testing.assert_close(
                got.float(), wanted.float(), rtol=0, atol=tolerance * max(1.0, float(wanted.float().abs().max())), msg=name
            )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("buffers", [False, True])
def test_output_and_gradients(level: str, gated: bool, buffers: bool) -> None:
    layer = _layer(gated)
    if buffers:
        for parameter in layer.parameters():
            parameter.main_grad = torch.zeros_like(parameter)  # type: ignore[attr-defined]
    _assert_same(*_both(layer, level, _entry(layer)))


@settings(max_examples=25, deadline=None)
@given(
    frames=st.integers(1, 3),
    tokens=st.integers(1, 20),
    heads=st.integers(1, 4),
    head=st.sampled_from([5, 8, 12]),  # norms of fewer numbers amplify rounding
    inner=st.integers(1, 40),
    gated=st.booleans(),
    level=st.sampled_from(LEVELS),
)
def test_any_size(frames: int, tokens: int, heads: int, head: int, inner: int, gated: bool, level: str) -> None:
    layer = _layer(gated, heads * head, heads, inner)
    _assert_same(*_both(layer, level, _entry(layer, frames, tokens)), tolerance=2e-5)


NAMES = [name for name, _ in VisionLayer(VisionConfig(hidden_size=8, num_attention_heads=2), gated=True).named_parameters()]


@settings(max_examples=40, deadline=None)
@given(trains=st.sets(st.sampled_from(NAMES)), entry=st.booleans(), level=st.sampled_from(LEVELS), buffers=st.booleans())
def test_any_part_may_be_frozen(trains: set[str], entry: bool, level: str, buffers: bool) -> None:
    layer = _layer(gated=True, width=16, heads=2, inner=24)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name in trains)
        if buffers and name in trains:
            parameter.main_grad = torch.zeros_like(parameter)  # type: ignore[attr-defined]
    x = _entry(layer, 2, 5).detach().requires_grad_(entry)
    if not trains and not entry:
        assert not fused_layer(layer, x, level).requires_grad
        return
    _assert_same(*_both(layer, level, x))


def test_buffers_are_added_to() -> None:
    layer = _layer(gated=True)
    x = _entry(layer)
    fused_layer(layer, x, "most").square().sum().backward()
    once = {name: p.grad for name, p in layer.named_parameters()}
    for parameter in layer.parameters():
        parameter.main_grad, parameter.grad = torch.ones_like(parameter), None  # type: ignore[attr-defined]
    for _ in range(2):
        fused_layer(layer, x, "most").square().sum().backward()
    for name, parameter in layer.named_parameters():
        gradient = once[name]
        assert gradient is not None
        expected, buffer = 1 + 2 * gradient, parameter.main_grad  # type: ignore[attr-defined]
        torch.testing.assert_close(buffer, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("gated", [False, True])
def test_levels_differ_in_nothing_but_what_they_keep(gated: bool) -> None:
    layer = _layer(gated, width=64, inner=96)
    bytes_, outputs, gradients = [], [], []
    for level in LEVELS:
        layer.zero_grad()
        x = _entry(layer)
        kept: dict[int, int] = {}

        def note(tensor: Tensor, kept: dict[int, int] = kept) -> Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = fused_layer(layer, x, level)
        bytes_.append(sum(kept.values()))
        outputs.append(output.detach())
        gradients.append(_gradients(output, layer, x))
    assert bytes_ == sorted(set(bytes_)), "each level keeps more than the one before"
    for output, found in zip(outputs[1:], gradients[1:], strict=True):
        assert torch.equal(output, outputs[0])
        for name, gradient in found.items():
            assert gradient is not None
            torch.testing.assert_close(gradient, gradients[0][name], rtol=0, atol=1e-6 * float(gradient.abs().max()), msg=name)


def test_a_gate_of_zero_has_a_gradient() -> None:
    layer = _layer(gated=True)
    with torch.no_grad():
        layer.gate_attn.zero_()
        layer.gate_ffn.zero_()
    expected, found = _both(layer, "attention", _entry(layer))
    _assert_same(expected, found)
    assert float(found["gate_attn"].abs()) > 1e-3 and float(found["gate_ffn"].abs()) > 1e-3


def test_weights_that_change_before_the_backward_pass_are_noticed() -> None:
    layer = _layer(gated=False)
    output = fused_layer(layer, _entry(layer), "all")
    with torch.no_grad():
        layer.mlp.fc2.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


@pytest.mark.parametrize("level", LEVELS)
def test_bf16_is_as_near_to_fp32_as_the_operators_are(level: str) -> None:
    exact = _layer(gated=True, width=64, inner=128)
    layer = copy.deepcopy(exact).bfloat16()
    exact.load_state_dict({name: value.float() for name, value in layer.state_dict().items()})
    x = _entry(layer)
    operators, fused = _both(layer, level, x)
    reference, _ = _both(exact, level, x.detach().float().requires_grad_())
    for name, wanted in reference.items():
        near, mine = ((found[name].float() - wanted).norm() / wanted.norm() for found in (operators, fused))
        assert mine <= 1.5 * near + 2e-3, f"{name}: {float(mine):.2g}, operators {float(near):.2g}"


@pytest.mark.gpu
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("gated", [False, True])
def test_on_the_gpu_it_is_as_near_to_fp32_as_the_operators_are(level: str, gated: bool) -> None:
    """Full width in bf16, two frames; fp32 is computed in fp64's stead by the operators."""
    exact = _layer(gated, 1280, 16, 5120).cuda()
    layer = copy.deepcopy(exact).bfloat16()
    exact.load_state_dict({name: value.float() for name, value in layer.state_dict().items()})
    for parameter in layer.parameters():
        parameter.main_grad = torch.zeros_like(parameter, dtype=torch.float32)  # type: ignore[attr-defined]
    x = _entry(layer, 2, 1608)
    assert choose(x.device, x.dtype, 16, 80).name != "formula"
    operators, fused = _both(layer, level, x)
    reference, again = _both(exact, level, x.detach().float().requires_grad_())
    _assert_same(reference, again, tolerance=2e-3)  # fp32 products in TF32 at most
    for name, wanted in reference.items():
        near, mine = ((found[name].float() - wanted).norm() / wanted.norm() for found in (operators, fused))
        spare = 2e-3 if wanted.numel() > 1 else 1e-2  # a gate's is a sum over all rows in which most cancels
        assert mine <= 1.5 * near + spare, f"{name}: {float(mine):.2g}, operators {float(near):.2g}"
