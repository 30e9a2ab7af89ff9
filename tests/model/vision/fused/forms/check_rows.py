"""Row functions of the fused layer in Triton: the numbers of the torch forms in fp32, rounded in the same places."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.vision.fused import rows as fused
from model.vision.fused import rows_fp8, rows_torch
from tests.inference.kernels.forms.where import DEVICE, INTERPRETED, few

EPS = 1e-5
TYPES = [torch.bfloat16, torch.float16]
WIDTHS = st.sampled_from([16, 33, 40, 64, 96, 160])
ROWS = st.sampled_from([0, 1, 3, 4, 17, 50])


def _random(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5).to(DEVICE, dtype)


def _assert_same_but_few(found: Tensor, expected: Tensor, dtype: torch.dtype, size: float = 1.0) -> None:
    """expected is fp32: found is it rounded, or seldom the number beside that."""
    assert (found.shape, found.dtype) == (expected.shape, dtype)
    torch.testing.assert_close(found.float(), expected.to(dtype).float(), atol=2e-6 * size, rtol=2 * torch.finfo(dtype).eps)
    if found.numel() > 100:
        assert ((found != expected.to(dtype)) & (expected.abs() > 1e-3 * size)).float().mean() <= 0.02


def _assert_sums(found: Tensor | None, expected: Tensor) -> None:
    assert found is not None and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@few
@given(rows=ROWS, width=WIDTHS, dtype=st.sampled_from(TYPES), biased=st.booleans(), gated=st.booleans())
def test_sum_and_norm(rows: int, width: int, dtype: torch.dtype, biased: bool, gated: bool) -> None:
    x, y = _random(rows, width, seed=1, dtype=dtype), _random(rows, width, seed=2, dtype=dtype)
    bias, weight, shift = _random(3, width, seed=3, dtype=dtype)
    arguments = (x, y, bias if biased else None, _random(1, seed=4, dtype=dtype) if gated else None)
    total, normed, mean, rstd = fused.add_norm(*arguments, weight, shift, EPS, form="triton")
    assert torch.equal(total, fused.add(*arguments, form="torch"))
    assert torch.equal(total, fused.add(*arguments, form="triton"))
    expected = rows_torch.norm(total.float(), weight.float(), shift.float(), EPS)
    _assert_same_but_few(normed, expected[0], dtype)
    torch.testing.assert_close(mean, expected[1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(rstd, expected[2], atol=0, rtol=1e-5)
    alone = fused.norm(total, weight, shift, EPS, form="triton")
    assert all(torch.equal(one, other) for one, other in zip(alone, (normed, mean, rstd), strict=True))
    assert torch.equal(fused.norm_again(total, mean, rstd, weight, shift, form="triton"), normed)


@few
@given(rows=ROWS, width=WIDTHS, dtype=st.sampled_from(TYPES), other=st.booleans())
def test_gradients_of_a_norm(rows: int, width: int, dtype: torch.dtype, other: bool) -> None:
    x, dy, dtotal = (_random(rows, width, seed=seed, dtype=dtype) for seed in (1, 2, 3))
    weight, shift = _random(2, width, seed=4, dtype=dtype)
    _, mean, rstd = fused.norm(x, weight, shift, EPS, form="torch")
    arguments = (dy, x, mean, rstd, weight, dtotal if other else None)
    dx, dweight, dshift = fused.norm_backward(*arguments, form="triton")
    expected = rows_torch.norm_backward(*(None if given is None else given.float() for given in arguments))
    _assert_same_but_few(dx, expected[0], dtype, 10)
    _assert_sums(dweight, expected[1])
    _assert_sums(dshift, expected[2])


@few
@given(rows=ROWS, width=WIDTHS, dtype=st.sampled_from(TYPES), biased=st.booleans())
def test_gelu_and_its_gradients(rows: int, width: int, dtype: torch.dtype, biased: bool) -> None:
    pre, da = _random(rows, width, seed=1, dtype=dtype), _random(rows, width, seed=2, dtype=dtype)
    bias = _random(width, seed=3, dtype=dtype) if biased else None
    dpre, a, dbias = fused.gelu_backward(da, pre, bias, form="triton")
    assert torch.equal(a, fused.gelu(pre, bias, form="triton"))
    entry = pre if bias is None else pre + bias
    expected_dpre, expected_a, _ = rows_torch.gelu_backward(da.float(), entry.float(), None)
    _assert_same_but_few(a, expected_a, dtype)
    _assert_same_but_few(dpre, expected_dpre, dtype, 2)
    assert (dbias is None) == (not biased)
    if biased:
        _assert_sums(dbias, expected_dpre.sum(0))


def test_derivative_of_gelu_at_every_bf16_number() -> None:
    """Within a unit in the last place of bf16, seldom another number, and 1e-6 where it is near 0."""
    entry = torch.arange(65536, device=DEVICE).to(torch.int16).view(torch.bfloat16)
    entry = torch.where(entry.abs() < 1e15, entry, 0).view(-1, 1024)  # its square is a number
    found = fused.gelu_backward(torch.ones_like(entry), entry, None, form="triton")[0]
    exact = entry.double().requires_grad_()
    (expected,) = torch.autograd.grad(torch.nn.functional.gelu(exact).sum(), exact)
    torch.testing.assert_close(found.float(), expected.to(torch.bfloat16).float(), atol=1e-6, rtol=2**-7)
    assert (found != expected.to(torch.bfloat16)).sum() <= 256


@few
@given(rows=ROWS, width=WIDTHS, dtype=st.sampled_from(TYPES))
def test_column_sums(rows: int, width: int, dtype: torch.dtype) -> None:
    x = _random(rows, width, seed=1, dtype=dtype)
    _assert_sums(fused.column_sums(x, form="triton"), x.float().sum(0))


def _assert_same_fp8(found: rows_fp8.Rounded, plain: Tensor, exact: bool = True) -> None:
    """found is what the torch form rounds `plain` to; but for few numbers unless exact."""
    _, rows, scale = rows_fp8.round_rows(plain, form="torch")
    assert (found.rows.shape, found.rows.dtype) == (rows.shape, torch.float8_e4m3fn)
    if exact:
        assert torch.equal(found.rows.view(torch.uint8), rows.view(torch.uint8)) and torch.equal(found.scale, scale)
    else:
        torch.testing.assert_close(found.rows.float() * found.scale, rows.float() * scale, atol=1e-3, rtol=0.13)


@few
@given(rows=ROWS, width=WIDTHS, dtype=st.sampled_from(TYPES), size=st.sampled_from([1e-30, 1.0, 3e4]))
def test_rows_in_fp8(rows: int, width: int, dtype: torch.dtype, size: float) -> None:
    x = (_random(rows, width, seed=1, dtype=torch.float32).clamp(-2, 2) * size).to(dtype)
    x[: rows // 2 : 2] = 0
    _assert_same_fp8(rows_fp8.round_rows(x, form="triton"), x)
    found, sums = rows_fp8.round_rows_summed(x, plain=True, form="triton")
    assert found.plain is x
    _assert_same_fp8(found, x)
    torch.testing.assert_close(sums, x.float().sum(0), atol=1e-4 * size, rtol=1e-5)


@few
@given(rows=ROWS, width=WIDTHS, dtype=st.sampled_from(TYPES), plain=st.booleans())
def test_the_others_in_fp8_are_their_results_rounded(rows: int, width: int, dtype: torch.dtype, plain: bool) -> None:
    x, y = _random(rows, width, seed=1, dtype=dtype), _random(rows, width, seed=2, dtype=dtype)
    bias, weight, shift = _random(3, width, seed=3, dtype=dtype)
    total, normed, mean, rstd = fused.add_norm(x, y, bias, None, weight, shift, EPS, form="triton")
    found = rows_fp8.add_norm(x, y, bias, None, weight, shift, EPS, form="triton")
    assert torch.equal(found[0], total) and torch.equal(found[2], mean) and torch.equal(found[3], rstd)
    _assert_same_fp8(found[1], normed)
    _assert_same_fp8(rows_fp8.norm(total, weight, shift, EPS, form="triton")[0], normed)
    again = rows_fp8.norm_again(total, mean, rstd, weight, shift, plain=plain, form="triton")
    _assert_same_fp8(again, normed)
    _assert_same_fp8(rows_fp8.gelu(x, bias, form="triton"), fused.gelu(x, bias, form="triton"))
    dpre, a, dbias = fused.gelu_backward(y, x, bias, form="triton")
    dpre8, a8, dbias8 = rows_fp8.gelu_backward(y, x, bias, plain=plain, form="triton")
    _assert_same_fp8(dpre8, dpre)
    _assert_same_fp8(a8, a)
    assert dbias is not None and dbias8 is not None and torch.equal(dbias8, dbias)
    alone, dbias_alone = rows_fp8.gelu_gradient(y, x, bias, form="triton")
    _assert_same_fp8(alone, dpre)
    _assert_sums(dbias_alone, dbias)
    unbiased, none = rows_fp8.gelu_gradient(y, x, None, form="triton")
    _assert_same_fp8(unbiased, fused.gelu_backward(y, x, None, form="triton")[0])
    assert none is None
    for rounded, whole in ((again, normed), (dpre8, dpre), (a8, a)):
        assert (rounded.plain is not None) == plain
        assert rounded.plain is None or torch.equal(rounded.plain, whole)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_what_is_no_number_stays_to_be_seen(value: float) -> None:
    x = _random(5, 48, seed=1, dtype=torch.bfloat16)
    x[2, 3] = value
    rows = rows_fp8.round_rows(x, form="triton")
    assert (rows.rows.float() * rows.scale)[2].isnan().any()
    assert (rows.rows.float() * rows.scale)[[0, 1, 3, 4]].isfinite().all()


def test_the_same_bits_again() -> None:
    x, dy = (_random(67 if INTERPRETED else 203, 96, seed=seed, dtype=torch.bfloat16) for seed in (1, 2))
    _, mean, rstd = fused.norm(x, x[0], x[1], EPS, form="triton")
    first = fused.norm_backward(dy, x, mean, rstd, x[0], dy, form="triton")
    for _ in range(1 if INTERPRETED else 3):  # the interpreter has one order of programs
        again = fused.norm_backward(dy, x, mean, rstd, x[0], dy, form="triton")
        assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
