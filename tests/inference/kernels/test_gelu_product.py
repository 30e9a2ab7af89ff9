"""The forms of the product with gelu inside as Triton's compiler makes them for Hopper, without a GPU."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("triton")

from inference.kernels.gelu_product import gains, gelu_product
from inference.kernels.triton_forms.gelu_product import Launch
from inference.kernels.triton_forms.gelu_product import gelu_product as launched
from model.kernels.compile_only import HOPPER_UNITS, compile_only, has_compiler

pytestmark = pytest.mark.skipif(not has_compiler(), reason="this build of triton carries no ptxas")


_OUT = 5128
"""Not a multiple of 16, as the model's widths are: a kernel that another test has compiled would not be compiled again."""


def _operands(dtype: torch.dtype, inner: int = 1280) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, weight, bias = (torch.empty(shape, device="meta", dtype=dtype) for shape in ((51456, inner), (_OUT, inner), (_OUT,)))
    return x, weight, bias


@pytest.mark.parametrize(("dtype", "inner", "name"), [
    (torch.bfloat16, 1280, "_overlapped_gelu_product"),
    (torch.bfloat16, 184, "_gelu_product"),
    (torch.float16, 1280, "_gelu_product"),
])  # fmt: skip
def test_the_form_that_runs_keeps_its_registers(dtype: torch.dtype, inner: int, name: str) -> None:
    with compile_only() as found:
        out = gelu_product(*_operands(dtype, inner))
    assert out.shape == (51456, _OUT) and out.dtype == dtype
    assert [kernel.name for kernel in found] == [name]
    assert found[0].stack == 0 and found[0].at_once == 1 and found[0].programs == HOPPER_UNITS


def test_gelu_of_few_rows_stays_behind_the_product() -> None:
    x, weight, bias = _operands(torch.bfloat16)
    with compile_only() as found:
        out = gelu_product(x[:1608], weight, bias)
    assert out.shape == (1608, _OUT)
    assert [kernel.name for kernel in found] == ["_gelu_rows"]


def test_gelu_inside_is_chosen_on_hopper_in_bf16_only() -> None:
    assert not gains(torch.device("cpu"), torch.bfloat16)
    assert not gains(torch.device("cpu"), torch.float32)


def test_small_tiles_share_a_multiprocessor() -> None:
    with compile_only() as found:
        launched(*_operands(torch.bfloat16), HOPPER_UNITS, Launch(columns=128, warps=4, at_once=2))
    assert found[0].stack == 0 and found[0].at_once == 2 and found[0].programs == 2 * HOPPER_UNITS
