"""A product with gelu inside, in Triton: the torch form's numbers, whole tiles or not, more tiles than programs or fewer."""

from __future__ import annotations

import pytest
import torch

from inference.kernels.gelu_product import gelu_product
from tests.inference.kernels.forms.where import DEVICE


@pytest.mark.parametrize(("rows", "inner", "columns"), [((2, 66), 72, 264), ((5,), 8, 1032), ((0,), 16, 32)])
def test_the_numbers_of_the_torch_form(rows: tuple[int, ...], inner: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(shape, generator=generator).to(DEVICE, torch.bfloat16)
        for shape in ((*rows, inner), (columns, inner), (columns,))
    )
    weight = weight * inner**-0.5
    found, expected = gelu_product(x, weight, bias, form="triton"), gelu_product(x, weight, bias, form="torch")
    assert found.shape == expected.shape and found.dtype == torch.bfloat16
    # One rounding of the product apart, at most.
    torch.testing.assert_close(found.float(), expected.float(), atol=2e-2, rtol=2**-7)
    if found.numel():
        assert (found != expected).float().mean() < 0.02
