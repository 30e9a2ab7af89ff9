"""Products in fp8, on a CPU: the same rounded numbers, multiplied in fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from model.vision.fused.fp8_products import Fp8Products
from model.vision.fused.products import PlainProducts

CLOSE = 0.06
"""Distance of a product whose operands have 4 significant bits each, in norms."""


def _apart(found: Tensor, expected: Tensor) -> float:
    return float((found.float() - expected.float()).norm() / expected.float().norm())


def _numbers(seed: int, *sizes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, generator=generator).bfloat16() for size in sizes]


shapes = st.tuples(st.integers(1, 70), st.integers(1, 5).map(lambda n: 16 * n), st.integers(1, 5).map(lambda n: 16 * n))
both = pytest.mark.parametrize("kind", ["fp8", "bf16"])


def _near(found: Tensor, left: Tensor, right: Tensor) -> None:
    """found is left right^T with every factor off by 2^-4, or by half a subnormal number of its scale."""
    slack = left.float().abs().amax() * 2**-17
    sizes = (left.float().abs() + slack) @ (right.float().abs() + right.float().abs().amax() * 2**-17).t()
    exact = left.double() @ right.double().t()
    assert ((found.double() - exact).abs() <= sizes * ((1 + 2**-4) ** 2 - 1 + 2**-7)).all()


@given(shapes, st.integers(0, 2**31), st.integers(-20, 20))
def test_products_are_near_at_every_magnitude(shape: tuple[int, int, int], seed: int, exponent: int) -> None:
    rows, wide, narrow = shape
    x, dy, weight = _numbers(seed, (rows, wide), (rows, narrow), (narrow, wide))
    x, dy = x * 2.0**exponent, dy * 2.0**-exponent
    products = Fp8Products()
    matrix = products.matrix(weight)
    _near(products.product(products.operand(x), matrix), x, weight)
    _near(products.input_gradient(products.operand(dy), matrix), dy, weight.t())
    (gradient,), dgate = products.weight_gradient(products.operand(dy), products.operand(x), nn.Parameter(weight))
    assert gradient is not None and dgate is None
    _near(gradient, dy.t(), x.t())


@given(shapes, st.integers(0, 2**31))
def test_the_numbers_are_those_of_rounded_operands(shape: tuple[int, int, int], seed: int) -> None:
    rows, wide, narrow = shape
    x, weight = _numbers(seed, (rows, wide), (narrow, wide))
    products = Fp8Products()
    left, right = products.operand(x), products.matrix(weight)
    exact = (left.rows.double() * left.scale) @ (right.weight.double() * right.scale).t()
    torch.testing.assert_close(products.product(left, right).double(), exact, rtol=2**-8, atol=1e-5)


def test_a_row_has_the_same_bits_beside_other_rows() -> None:
    x, weight = _numbers(3, (40, 48), (64, 48))
    products = Fp8Products()
    matrix = products.matrix(weight)
    alone = products.product(products.operand(x[:8]), matrix)
    x[8:] *= 1000
    assert torch.equal(products.product(products.operand(x), matrix)[:8], alone)


@both
def test_gates_scale_gradients_as_in_plain_products(kind: Any) -> None:
    x, dy, weight = _numbers(4, (50, 32), (50, 48), (48, 32))
    parameter, gate = nn.Parameter(weight), torch.tensor([0.37]).bfloat16()
    found, expected = Fp8Products(kind), PlainProducts()
    dx = found.input_gradient(found.operand(dy), found.matrix(weight), gate)
    assert _apart(dx, expected.input_gradient(dy, weight, gate)) < CLOSE
    (gradient,), dgate = found.weight_gradient(found.operand(dy), found.operand(x), parameter, gate=gate)
    (near,), dgate_near = expected.weight_gradient(dy, x, parameter, gate=gate)
    assert gradient is not None and near is not None and dgate is not None and dgate_near is not None
    assert _apart(gradient, near) < CLOSE
    # The sum over all weights cancels: its error is held against the size of its terms.
    size = float((dy.float().t() @ x.float()).norm() * weight.float().norm())
    assert abs(float(dgate - dgate_near)) < CLOSE * size


@both
def test_joint_weights_frozen_weights_and_main_gradients(kind: Any) -> None:
    x, dy, *weights = _numbers(5, (33, 32), (33, 48), (16, 32), (16, 32), (16, 32))
    parameters = [nn.Parameter(weight) for weight in weights]
    parameters[1].requires_grad_(False)
    parameters[2].main_grad = torch.ones(16, 32)  # type: ignore[attr-defined]
    products = Fp8Products(kind)
    gradients, _ = products.weight_gradient(products.operand(dy), products.operand(x), *parameters)
    expected = (dy.float().t() @ x.float()).split(16)
    assert gradients[1] is None and gradients[2] is None and gradients[0] is not None
    assert gradients[0].dtype == torch.bfloat16 and _apart(gradients[0], expected[0]) < CLOSE
    main = parameters[2].main_grad
    assert _apart(main - 1, expected[2]) < CLOSE
    products.weight_gradient(products.operand(dy), products.operand(x), *parameters)
    assert _apart(main - 1, 2 * expected[2]) < CLOSE


@both
def test_zeros_and_leaps_give_numbers(kind: Any) -> None:
    x, dy, weight = _numbers(6, (24, 32), (24, 16), (16, 32))
    x[3], dy[5:9] = 0, 0
    x[7] *= 1e30
    dy[2] *= 1e-30
    products = Fp8Products(kind)
    matrix = products.matrix(torch.zeros_like(weight))
    assert not products.product(products.operand(x), matrix).any()
    assert not products.input_gradient(products.operand(dy), matrix).any()
    matrix = products.matrix(weight)
    assert products.product(products.operand(x), matrix).isfinite().all()
    assert products.input_gradient(products.operand(torch.zeros_like(dy)), matrix).count_nonzero() == 0
    for left in (dy, torch.zeros_like(dy)):
        (gradient,), _ = products.weight_gradient(products.operand(left), products.operand(x), nn.Parameter(weight))
        assert gradient is not None and gradient.isfinite().all()


def test_what_is_no_number_is_not_hidden() -> None:
    x, dy, weight = _numbers(7, (24, 32), (24, 16), (16, 32))
    products = Fp8Products()
    matrix = products.matrix(weight)
    x[2, 5] = float("nan")
    assert products.product(products.operand(x), matrix)[2].isnan().all()
    (gradient,), _ = products.weight_gradient(products.operand(dy), products.operand(x), nn.Parameter(weight))
    assert gradient is not None and gradient.isnan().all()


def test_no_rows() -> None:
    products = Fp8Products()
    weight = torch.randn(16, 32).bfloat16()
    empty = products.operand(torch.zeros(0, 32).bfloat16())
    assert products.product(empty, products.matrix(weight)).shape == (0, 16)
    dy = products.operand(torch.zeros(0, 16).bfloat16())
    (gradient,), _ = products.weight_gradient(dy, empty, nn.Parameter(weight))
    assert gradient is not None and not gradient.any()
