"""A product with gelu inside, in Triton: the torch form's numbers, whole tiles or not, more tiles than programs or fewer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from inference.kernels.gelu_product import gelu_product
from inference.kernels.triton_forms.gelu_product import DEFAULT, Launch
from inference.kernels.triton_forms.gelu_product import gelu_product as launched
from model.kernels.select import multiprocessors
from tests.inference.kernels.forms.where import DEVICE, INTERPRETED


def _operands(rows: tuple[int, ...], inner: int, columns: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator).to(DEVICE, torch.bfloat16)
        for shape in ((*rows, inner), (columns, inner), (columns,))
    )
    return x, weight * inner**-0.5, bias


FEW = 0.02


def _differing(found: Tensor, expected: Tensor) -> float:
    """The share of numbers that are not the same, none by more than one rounding of the product."""
    assert found.shape == expected.shape and found.dtype == expected.dtype
    torch.testing.assert_close(found.float(), expected.float(), atol=2e-2, rtol=2**-7)
    return float((found != expected).float().mean()) if found.numel() else 0.0


@pytest.mark.parametrize(("rows", "inner", "columns"), [((2, 66), 72, 264), ((5,), 8, 1032), ((0,), 16, 32)])
def test_the_numbers_of_the_torch_form(rows: tuple[int, ...], inner: int, columns: int) -> None:
    operands = _operands(rows, inner, columns)
    assert _differing(gelu_product(*operands, form="triton"), gelu_product(*operands, form="torch")) < FEW


@pytest.mark.parametrize(
    "launch",
    [
        replace(DEFAULT, flat=not DEFAULT.flat),
        Launch(columns=128, warps=4, at_once=2, parts=1),
        Launch(rows=64, columns=256, warps=4, at_once=2, parts=4, group=2),
    ],
)
def test_every_launch_gives_the_same_bits(launch: Launch) -> None:
    operands = _operands((200,), 136, 392)
    units = multiprocessors(operands[0].device)
    found = launched(*operands, units, launch)
    assert torch.equal(found, launched(*operands, units))
    assert _differing(found, gelu_product(*operands, form="torch")) < FEW


@pytest.mark.skipif(INTERPRETED, reason="Gluon has no interpreter")
@pytest.mark.skipif(not INTERPRETED and torch.cuda.get_device_capability()[0] != 9, reason="matrix instructions of Hopper")
@pytest.mark.parametrize(("rows", "inner", "columns"), [(5, 256, 32), (1000, 1280, 5120), (51456, 200, 264), (3201, 1288, 1032)])
def test_overlapping_changes_no_bit(rows: int, inner: int, columns: int) -> None:
    from inference.kernels.triton_forms.overlapped_gelu_product import overlapped_gelu_product

    operands = _operands((rows,), inner, columns)
    units = multiprocessors(operands[0].device)
    expected = launched(*operands, units)
    assert _differing(expected, gelu_product(*operands, form="torch")) < FEW
    for _ in range(3):
        assert torch.equal(overlapped_gelu_product(*operands, units), expected)


def _identity(x: Tensor, inner: int) -> tuple[Tensor, Tensor, Tensor]:
    """Operands whose product is x [n, 8]."""
    unit = torch.eye(8, inner, device=DEVICE, dtype=torch.bfloat16)
    return torch.nn.functional.pad(x, (0, inner - 8)), unit, torch.zeros(8, device=DEVICE, dtype=torch.bfloat16)


INNER = pytest.mark.parametrize("inner", [8, 200])
"""Widths that the persistent form and, on Hopper, the overlapped one take."""


@INNER
def test_gelu_of_every_number_is_the_exact_one(inner: int) -> None:
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    every = every[every.isfinite()].to(DEVICE)  # 8 * 8160 of them
    x, unit, nothing = _identity(every.view(-1, 8), inner)
    found = gelu_product(x, unit, nothing, form="triton").view(-1)
    wide = every.double()
    exact = (0.5 * wide * torch.erfc(-wide * 0.5**0.5)).bfloat16()
    here = every > -4.5  # below, results are less than 2e-5 and torch's own form cancels
    assert torch.equal(found[here], exact[here])
    assert float((found - exact)[~here].abs().max()) < 1e-7
    # So does the published form in fp32 where it does not cancel.
    usual = every[(every > -1) & (every.abs() > 1e-30)].float()
    published = (0.5 * usual * (1 + torch.erf(usual * 0.5**0.5))).bfloat16()
    assert torch.equal(found[(every > -1) & (every.abs() > 1e-30)], published)


@INNER
def test_what_is_no_number_stays_so(inner: int) -> None:
    x = torch.tensor([[float("nan")] * 8, [0.0] * 8], device=DEVICE, dtype=torch.bfloat16)
    found = gelu_product(*_identity(x, inner), form="triton")
    assert bool(found[0].isnan().all()) and bool((found[1] == 0).all())
