"""Rounding rows to fp8 in Triton: the bits of the torch form."""

from __future__ import annotations

import pytest
import torch

from inference.quantize import dequantize_rows, quantize_rows
from tests.inference.kernels.forms.where import DEVICE


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(5, 96), (2, 2, 33), (0, 8)])
def test_the_same_bits(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = (torch.randn(shape, generator=torch.Generator().manual_seed(2)) * 3).to(DEVICE, dtype)
    if x.numel():
        x.view(-1, shape[-1])[0] = 0
    for given in (x, x[..., : shape[-1] // 2 + 1], x.transpose(0, -2)):
        expected, found = quantize_rows(given, form="torch"), quantize_rows(given, form="triton")
        assert torch.equal(found[0].view(torch.uint8), expected[0].contiguous().view(torch.uint8))
        assert torch.equal(found[1], expected[1])


def test_what_is_not_finite_does_not_become_a_number() -> None:
    x = torch.tensor([[1.0, float("nan")], [float("inf"), 1.0], [1.0, 2.0]], device=DEVICE)
    found = dequantize_rows(*quantize_rows(x, form="triton"))
    assert found.isnan().any(-1).tolist() == [True, True, False]
