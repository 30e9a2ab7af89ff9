"""Row functions of the fused layer: their torch forms against autograd, on any device."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.vision.fused import rows as fused

EPS = 1e-5
ROWS, WIDTHS = st.integers(0, 9), st.integers(1, 70)
property_test = settings(max_examples=25, deadline=None)


def _random(*shape: int, seed: int, grad: bool = True, dtype: torch.dtype = torch.float32) -> Tensor:
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return numbers.to(dtype).requires_grad_(grad)


def _assert_close(found: Tensor | None, expected: Tensor | None, size: float = 1.0) -> None:
    """Within 1e-5 of the largest value."""
    assert found is not None and expected is not None
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-5 * size, rtol=1e-5)


@property_test
@given(rows=ROWS, width=WIDTHS, biased=st.booleans(), gated=st.booleans())
def test_sum_and_norm_and_their_gradients(rows: int, width: int, biased: bool, gated: bool) -> None:
    x, y, other = (_random(rows, width, seed=seed) for seed in (1, 2, 3))
    bias = _random(width, seed=4) if biased else None
    gate = _random(1, seed=5, grad=False) if gated else None
    weight, shift = _random(width, seed=6), _random(width, seed=7)
    added = y if bias is None else y + bias
    expected_total = x + (added if gate is None else gate * added)
    expected_normed = F.layer_norm(expected_total, (width,), weight, shift, EPS)
    dtotal, dnormed = _random(rows, width, seed=8, grad=False), other.detach()
    inputs = [leaf for leaf in (x, weight, shift, bias) if leaf is not None]
    wanted = torch.autograd.grad([expected_total, expected_normed], inputs, [dtotal, dnormed])

    with torch.no_grad():
        total, normed, mean, rstd = fused.add_norm(x, y, bias, gate, weight, shift, EPS)
        assert torch.equal(total, fused.add(x, y, bias, gate))
        _assert_close(fused.norm_again(total, mean, rstd, weight, shift), expected_normed.detach(), 10)
        dx, dweight, dshift = fused.norm_backward(dnormed, total, mean, rstd, weight, dtotal)
        dbias = fused.column_sums(dx) * (1 if gate is None else gate)
    _assert_close(total, expected_total.detach())
    _assert_close(normed, expected_normed.detach())
    # A row of one element has no deviation: its gradients are rounding errors times 1 / sqrt(eps).
    size = 400.0 if width < 3 else 10.0
    for ours, theirs in zip((dx, dweight, dshift, dbias), wanted, strict=False):
        _assert_close(ours, theirs, size)


@property_test
@given(rows=ROWS, width=WIDTHS)
def test_norm_alone(rows: int, width: int) -> None:
    x, weight, shift = _random(rows, width, seed=1), _random(width, seed=2), _random(width, seed=3)
    y, mean, rstd = fused.norm(x.detach(), weight.detach(), shift.detach(), EPS)
    expected = F.layer_norm(x, (width,), weight, shift, EPS)
    _assert_close(y, expected.detach())
    _assert_close(mean, x.detach().mean(-1))
    _assert_close(rstd, ((x.detach() - mean[:, None]).square().mean(-1) + EPS).rsqrt(), 300)
    dy = _random(rows, width, seed=4, grad=False)
    wanted = torch.autograd.grad(expected, [x, weight, shift], dy)
    found = fused.norm_backward(dy, x.detach(), mean, rstd, weight.detach(), None)
    for ours, theirs in zip(found, wanted, strict=True):
        _assert_close(ours, theirs, 400.0 if width < 3 else 10.0)


@property_test
@given(rows=ROWS, width=WIDTHS, biased=st.booleans())
def test_gelu_and_its_gradients(rows: int, width: int, biased: bool) -> None:
    pre, bias = _random(rows, width, seed=1), _random(width, seed=2) if biased else None
    expected = F.gelu(pre if bias is None else pre + bias)
    da = _random(rows, width, seed=3, grad=False)
    wanted = torch.autograd.grad(expected, [leaf for leaf in (pre, bias) if leaf is not None], da)
    with torch.no_grad():
        dpre, again, dbias = fused.gelu_backward(da, pre, bias)
        assert torch.equal(again, fused.gelu(pre, bias)) and torch.equal(again, expected)
    _assert_close(dpre, wanted[0])
    assert (dbias is None) == (not biased)
    if biased:
        _assert_close(dbias, wanted[1])


@property_test
@given(rows=st.integers(1, 5), width=st.integers(2, 40))
def test_in_double_precision(rows: int, width: int) -> None:
    """The formulas themselves, without rounding."""
    x, y = (_random(rows, width, seed=seed, dtype=torch.float64) for seed in (1, 2))
    bias, weight, shift = (_random(width, seed=seed, dtype=torch.float64) for seed in (3, 4, 5))
    expected = F.gelu(F.layer_norm(x + y + bias, (width,), weight, shift, EPS))
    da = _random(rows, width, seed=7, grad=False, dtype=torch.float64)
    wanted = torch.autograd.grad(expected, [x, y, weight, shift, bias], da)
    with torch.no_grad():
        total, normed, mean, rstd = fused.add_norm(x, y, bias, None, weight, shift, EPS)
        dnormed, _, _ = fused.gelu_backward(da, normed, None)
        dx, dweight, dshift = fused.norm_backward(dnormed, total, mean, rstd, weight, None)
    for ours, theirs in zip((dx, dx, dweight, dshift, fused.column_sums(dx)), wanted, strict=True):
        assert ours.dtype == torch.float64
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-8)


def test_bf16_is_rounded_where_separate_operations_round() -> None:
    x, y, bias, weight, shift = (
        _random(*shape, seed=seed, grad=False, dtype=torch.bfloat16)
        for seed, shape in enumerate([(33, 64), (33, 64), (64,), (64,), (64,)])
    )
    gate = torch.tensor([0.3], dtype=torch.bfloat16)
    total, normed, mean, _ = fused.add_norm(x, y, bias, gate, weight, shift, EPS)
    assert torch.equal(total, x + gate * (y + bias)) and mean.dtype == torch.float32
    assert torch.equal(normed, F.layer_norm(total.float(), (64,), weight.float(), shift.float(), EPS).bfloat16())
    assert torch.equal(fused.gelu(x, bias), F.gelu(x + bias))
