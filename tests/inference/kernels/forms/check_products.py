"""Products of a few rows in Triton, held against the torch form."""

from __future__ import annotations

import pytest
import torch

from inference.kernels.skinny import skinny_linear, skinny_swiglu
from inference.kernels.triton_forms.skinny import Launch, skinny_product
from tests.inference.kernels.forms.where import DEVICE

LAUNCHES = [None, Launch(8, 16, 1), Launch(16, 32, 3)]


@pytest.mark.parametrize("glu", [False, True], ids=["plain", "swiglu"])
@pytest.mark.parametrize(("dtype", "fp8"), [(torch.float32, False), (torch.bfloat16, False), (torch.bfloat16, True)])
@pytest.mark.parametrize(("rows", "outs", "ins"), [(1, 20, 48), (3, 20, 80)])
def test_products(rows: int, outs: int, ins: int, dtype: torch.dtype, fp8: bool, glu: bool) -> None:
    torch.manual_seed(rows)
    x, weight = torch.randn(rows, ins).to(dtype), torch.randn(outs, ins).to(dtype) / ins**0.5
    scale = None
    if fp8:
        weight, scale = weight.to(torch.float8_e4m3fn), torch.rand(outs) + 0.5
    x, weight, scale = x.to(DEVICE), weight.to(DEVICE), None if scale is None else scale.to(DEVICE)
    expected = (skinny_swiglu if glu else skinny_linear)(x, weight, scale, form="torch")
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    shapes = LAUNCHES if rows == 3 else LAUNCHES[:1]
    for shape in (*shapes, Launch(4, 32, 1, dot=False)) if rows == 1 else shapes:
        found = skinny_product(x, weight, scale, glu=glu, launch=shape)
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)
    assert torch.equal(found, skinny_product(x, weight, scale, glu=glu, launch=shape)), "another result in another call"


@pytest.mark.parametrize("glu", [False, True], ids=["plain", "swiglu"])
@pytest.mark.parametrize("fp8", [False, True], ids=["bf16", "fp8"])
@pytest.mark.parametrize(("rows", "outs", "ins"), [(1, 4, 5120), (1, 4, 3000), (5, 68, 1024)])
def test_default_launches_over_many_blocks(rows: int, outs: int, ins: int, fp8: bool, glu: bool) -> None:
    """More blocks than are copied ahead, the last one whole or in part."""
    generator = torch.Generator().manual_seed(ins)
    x = torch.randn(rows, ins, generator=generator).bfloat16().to(DEVICE)
    weight = (torch.randn(outs, ins, generator=generator) / ins**0.5).to(DEVICE)
    weight, scale = (
        (weight.to(torch.float8_e4m3fn), torch.full((outs,), 1.5, device=DEVICE)) if fp8 else (weight.bfloat16(), None)
    )
    expected = (skinny_swiglu if glu else skinny_linear)(x, weight, scale, form="torch")
    found = skinny_product(x, weight, scale, glu=glu)
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=2e-2)


def test_more_rows_take_the_general_product() -> None:
    x, weight = torch.randn(17, 32, device=DEVICE), torch.randn(8, 32, device=DEVICE)
    assert torch.equal(skinny_linear(x, weight, form="triton"), torch.nn.functional.linear(x, weight))
