"""Greedy choice in Triton: the tokens of the torch form, whatever is banned, silenced, equal or no number."""

from __future__ import annotations

import math

import pytest
import torch

from inference.kernels.tokens import best_tokens
from tests.inference.kernels.forms.where import DEVICE

BANNED, SILENCED = 1, 2


@pytest.mark.parametrize("width", [5, 2048, 5000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_the_best_token_of_each_row(width: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(width)
    logits = torch.randn(9, width, generator=generator).to(dtype)
    flags = torch.randint(0, 8, (9, width), generator=generator, dtype=torch.uint8)
    logits[1] = logits[1].round()  # many equal
    flags[2] = BANNED
    logits[3, width - 1], flags[3, width - 1] = math.nan, 0
    logits[4, 0], flags[4, 0] = math.inf, 0
    logits[5, 1], flags[5, 1] = math.nan, BANNED  # nobody looks at it
    logits[6] = -math.inf
    flags[7], logits[7, width - 1], flags[7, width - 1] = 0, 100.0, SILENCED
    flags[8], logits[8, 0], logits[8, width - 1] = 0, 50.0, 50.0  # the first of equals
    flags[0], logits[0], logits[0, width - 2 :] = 0, -1.0, torch.tensor([-0.0, 0.0])  # equal, though their bits are not
    # Silence as a column of a wider table, as the sampler keeps it.
    silence = torch.arange(40, 130, 10)[:, None].expand(9, 3).contiguous()[:, 1]
    operands = [tensor.to(DEVICE) for tensor in (logits, flags, silence)]
    expected = best_tokens(*operands, BANNED, SILENCED, form="torch").tolist()
    found = best_tokens(*operands, BANNED, SILENCED, form="triton").tolist()
    assert found == expected
    assert [found[row] for row in (0, 2, 3, 4, 6, 7, 8)] == [width - 2, -1, -1, -1, -1, 110, 0]
    assert found[5] != -1
