"""Turning in Triton gives the torch form's bits."""

from __future__ import annotations

import pytest
import torch

from model.vision.fused.kernels.turn import LAUNCH, Launch
from model.vision.fused.kernels.turn import turn as launch
from model.vision.fused.scales import round_rows
from model.vision.fused.turn import turn
from tests.inference.kernels.forms.where import DEVICE


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
