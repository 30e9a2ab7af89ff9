"""Products of fp8 numbers, and sums of them."""

from __future__ import annotations

import pytest
import torch

from model.vision.fused.fp8_accumulate import add_scaled_product, scaled_product
from model.vision.fused.scales import round_rows
from model.vision.fused.turn import Turned, turn

GPU = pytest.param("cuda", marks=pytest.mark.gpu)
devices = pytest.mark.parametrize("device", ["cpu", GPU])


def _turned(device: str, seed: int, rows: int, width: int) -> Turned:
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).bfloat16()
    return turn(*round_rows(x.to(device)))


@devices
@pytest.mark.parametrize("rows", [8, 24, 400])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_buffer_takes_the_product_on_top(device: str, rows: int, dtype: torch.dtype) -> None:
    a, b = _turned(device, 1, rows, 32), _turned(device, 2, rows, 64)
    main = torch.full((32, 64), 3.0, dtype=dtype, device=device)
    place = main.data_ptr()
    # One rounding of the buffer for each addition; a Hopper GPU adds products of fp8 numbers in some 13 bits.
    error = 2**-7 if dtype == torch.bfloat16 else 1e-5 if device == "cpu" else 2**-10
    for times in (1, 2):
        add_scaled_product(a, b, main, False)
        exact = (a.columns.double() @ b.columns.double().t()) * a.scale * b.scale
        torch.testing.assert_close(main.double() - 3, times * exact, rtol=0, atol=error * (3 + float(times * exact.abs().max())))
    assert main.data_ptr() == place


@devices
@pytest.mark.parametrize("rows", [2, 8, 40])
def test_scales_of_rows_on_both_sides(device: str, rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    (a, scale_a), (b, scale_b) = (
        round_rows((torch.randn(n, 48, generator=generator) * 2.0 ** torch.randint(-9, 9, (n, 1))).bfloat16().to(device))
        for n in (rows, 32)
    )
    exact = (a.double() * scale_a) @ (b.double() * scale_b).t()
    for dtype, tolerance in ((torch.bfloat16, 2**-8), (torch.float32, 2**-10)):
        found = scaled_product(a, scale_a, b, scale_b.view(1, -1), dtype, True)
        sizes = (a.double().abs() * scale_a) @ (b.double().abs() * scale_b).t()
        assert found.dtype == dtype and ((found.double() - exact).abs() <= tolerance * sizes).all()
