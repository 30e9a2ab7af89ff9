"""Products joined with what follows them: a layer with their formulas, and the kernels on a GPU."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.config import VisionConfig
from model.vision.fused import joined
from model.vision.fused.layer import fused_layer
from model.vision.fused.levels import KEPT
from model.vision.layers import VisionLayer


def _numbers(seed: int, *size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed))


def _layer(gated: bool) -> VisionLayer:
    torch.manual_seed(0)
    return VisionLayer(VisionConfig(hidden_size=64, num_attention_heads=4, intermediate_size=256), gated)


def _run(layer: VisionLayer, level: str, x: Tensor, gradient: Tensor) -> list[Tensor]:
    layer.zero_grad()
    x = x.clone().requires_grad_()
    output = fused_layer(layer, x, level)
    output.backward(gradient)
    assert x.grad is not None
    return [output.detach(), x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


@pytest.mark.parametrize("level", KEPT)
@pytest.mark.parametrize("gated", [False, True])
def test_a_layer_of_joined_products_is_the_same(level: str, gated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x, gradient = _layer(gated), _numbers(1, 2, 21, 64), _numbers(2, 2, 21, 64)
    expected = _run(layer, level, x, gradient)
    used: list[str] = []

    def chosen(name: str, _x: Tensor) -> joined.Joined:
        used.append(name)
        return joined.FORMS[name][1]

    monkeypatch.setattr(joined, "choose", chosen)
    found = _run(layer, level, x, gradient)
    assert ("gelu" in used) == (level != "all") and ("sum" in used) == (not gated) and "gradient" in used
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(fused_layer(layer, x), expected[0], atol=1e-5, rtol=1e-5)


@given(st.integers(0, 20), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_formulas(rows: int, width: int, out: int, biased: bool) -> None:
    x, weight, total, bias = _numbers(1, rows, width), _numbers(2, out, width), _numbers(3, rows, out), _numbers(4, out)
    expected = torch.nn.functional.linear(x, weight, bias if biased else None) + total
    torch.testing.assert_close(joined.formula_sum(x, weight, total, bias if biased else None), expected, atol=1e-4, rtol=1e-5)
    expected = torch.nn.functional.gelu(torch.nn.functional.linear(x, weight, bias))
    torch.testing.assert_close(joined.formula_gelu(x, weight, bias), expected, atol=1e-4, rtol=1e-5)


@given(st.integers(1, 20), st.integers(1, 40), st.integers(1, 40))
def test_formula_of_the_gradient(rows: int, width: int, inner: int) -> None:
    dy, weight, pre, bias = _numbers(1, rows, width), _numbers(2, width, inner), _numbers(3, rows, inner), _numbers(4, inner)
    pre.requires_grad_()
    bias.requires_grad_()
    activated = torch.nn.functional.gelu(pre + bias)
    torch.nn.functional.linear(activated, weight).backward(dy)
    found = joined.formula_gradient(dy, weight, pre.detach(), bias.detach())
    for ours, theirs in zip(found, (pre.grad, activated.detach(), bias.grad), strict=True):
        assert theirs is not None
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-5)


def test_nothing_is_chosen_where_rows_are_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "TAKEN", ("sum", "gelu"))
    assert joined.choose("sum", torch.zeros(2, 16).bfloat16()) is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", joined.FORMS)
def test_on_the_gpu(name: str) -> None:
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        pytest.skip("no Hopper GPU")
    pytest.importorskip("quack")
    assert joined.trial(name, torch.device("cuda"), torch.bfloat16) == ""
