"""A session whose rows are no numbers shares a tile with others: it stays without numbers, and they keep theirs."""

from __future__ import annotations

import math

import pytest
import torch

from inference.kernels import paged_attention
from inference.kernels.heads import rotate_and_store
from inference.model.rows import PagedView
from model.kernels.select import Form
from tests.inference.kernels.forms.where import DEVICE

HEADS, DIM, PAGE_ROWS, SEEN = 2, 16, 8, 5


def _attended(wrong: float, fp8: bool, form: Form) -> torch.Tensor:
    """[2 sessions, heads * dim]: the newest row of each over its 5 rows, one of the second session's being `wrong`."""
    generator = torch.Generator().manual_seed(3)
    qkv = torch.randn(2 * SEEN, (HEADS + 2) * DIM, generator=generator)
    qkv[SEEN + 2] = wrong
    kind = torch.float8_e4m3fn if fp8 else torch.float32
    keys, values = (torch.zeros(3, PAGE_ROWS, 1, DIM, device=DEVICE).to(kind) for _ in range(2))
    scales = torch.zeros(2, 3, PAGE_ROWS, 1, device=DEVICE) if fp8 else None
    slots = torch.tensor([*range(PAGE_ROWS, PAGE_ROWS + SEEN), *range(2 * PAGE_ROWS, 2 * PAGE_ROWS + SEEN)], device=DEVICE)
    still = torch.ones(2 * SEEN, DIM, device=DEVICE), torch.zeros(2 * SEEN, DIM, device=DEVICE)
    queries = rotate_and_store(qkv.to(DEVICE), *still, keys, values, slots, scales=scales, form=form)
    tables, session, limits = (torch.tensor(x, dtype=torch.int32, device=DEVICE) for x in ([[1], [2]], [0, 1], [SEEN, SEEN]))
    newest = queries[SEEN - 1 :: SEEN].contiguous()
    return paged_attention(newest, keys, values, scales, PagedView(tables, session, limits), form=form).cpu()


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("fp8", [False, True], ids=["dense", "fp8"])
@pytest.mark.parametrize("form", ["torch", "triton"])
def test_the_other_session_keeps_its_numbers(form: Form, fp8: bool, wrong: float) -> None:
    found, usual = _attended(wrong, fp8, form), _attended(1.0, fp8, form)
    torch.testing.assert_close(found[0], usual[0])
    assert bool(found[1].isnan().all())
