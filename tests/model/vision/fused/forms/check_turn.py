"""Turning in Triton gives the torch form's bits."""

from __future__ import annotations

import pytest
import torch

from model.vision.fused import rows, rows_fp8
from model.vision.fused.kernels import columns as kernels
from model.vision.fused.kernels.turn import LAUNCH, Launch
from model.vision.fused.kernels.turn import turn as launch
from model.vision.fused.scales import round_rows
from model.vision.fused.turn import Turned, columns, gelu_columns, largest, norm_columns, turn
from tests.inference.kernels.forms.where import DEVICE, INTERPRETED

SHAPES = [(1, 16), (24, 48), (128, 128), (140, 144)]
"""Rows and columns: within a tile, a whole one, and parts of tiles behind whole ones."""
SMALL = [(1, 16), (24, 48), (32, 64)]
"""A row of many is slow to interpret; here whole tiles are those of the smaller launch below."""
TYPES = [torch.bfloat16, torch.float16]


@pytest.mark.parametrize("shape", [LAUNCH, Launch(64, 64, 4)], ids=str)
@pytest.mark.parametrize("rows, width", [(1, 16), (24, 48), (128, 128), (201, 144), (300, 272)])
def test_bits(rows: int, width: int, shape: Launch) -> None:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn((rows, width), generator=generator) * 2.0 ** torch.randint(-24, 3, (rows, 1), generator=generator)
    values, scale = round_rows(x.bfloat16().to(DEVICE))
    expected = turn(values, scale, form="torch")
    found = launch(values, scale, expected.scale, expected.columns.shape[1], shape)
    assert torch.equal(found.view(torch.uint8) & 0x7F == 0, expected.columns.view(torch.uint8) & 0x7F == 0)
    assert torch.equal(found.float(), expected.columns.float())


def test_no_number_stays_none() -> None:
    values, scale = round_rows(torch.randn(40, 32, device=DEVICE))
    scale[7] = float("nan")
    found = turn(values, scale, form="triton")
    assert (found.columns.float() * found.scale).isnan().any(1).all()


def _assert_same(found: Turned, expected: Turned) -> None:
    assert found.columns.shape == expected.columns.shape and torch.equal(found.scale, expected.scale)
    assert torch.equal(found.columns.float(), expected.columns.float())


def _common(plain: torch.Tensor) -> torch.Tensor:
    """The scale of all rows, which the Triton forms find too: see check_rows.py."""
    return largest(rows_fp8.round_rows(plain, form="torch").scale)


@pytest.mark.parametrize(
    ("count", "width", "dtype"),
    [(*shape, t) for shape in (SMALL if INTERPRETED else SHAPES) for t in TYPES] + [(140, 144, torch.bfloat16)] * INTERPRETED,
)
def test_columns_are_the_torch_forms_of_the_same_rows(count: int, width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(count)
    x = torch.randn((count, width), generator=generator) * 2.0 ** torch.randint(-8, 3, (count, 1), generator=generator)
    x = x.to(DEVICE, dtype)
    weight, shift = torch.randn((2, width), generator=generator).to(DEVICE, dtype)
    _assert_same(columns(x, largest(round_rows(x)[1]), form="triton"), columns(x, largest(round_rows(x)[1]), form="torch"))
    normed, mean, rstd = rows.norm(x, weight, shift, 1e-5, form="triton")
    common = _common(normed)
    _assert_same(norm_columns(x, mean, rstd, weight, shift, common, form="triton"), columns(normed, common, form="torch"))
    for bias in (shift, None):
        activated = rows.gelu(x, bias, form="triton")
        common = _common(activated)
        expected = columns(activated, common, form="torch")
        _assert_same(gelu_columns(x, bias, common, form="triton"), expected)
        other = kernels.gelu_columns(x, bias, common, expected.columns.shape[1], kernels.Launch(32, 32, 4))
        _assert_same(Turned(other, common), expected)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_no_number_in_columns_stays_none(value: float) -> None:
    x = torch.randn(40, 32, device=DEVICE).bfloat16()
    x[7, 3] = value
    found = columns(x, largest(rows_fp8.round_rows(x, form="triton").scale), form="triton")
    assert (found.columns.float() * found.scale)[3].isnan().any()
