"""The tower's attention in Triton: the formula's numbers, whole steps of keys or not, whole tiles of queries or not."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.kernels.vision_attention import vision_attention
from tests.inference.kernels.forms.where import DEVICE, INTERPRETED, few

WIDTHS = (80, 64, 72, 16, 96)


def joint(frames: int, tokens: int, heads: int, width: int, dtype: torch.dtype, size: float = 1.0) -> list[torch.Tensor]:
    """q, k, v as views of one tensor, as the tower has them."""
    numbers = size * torch.randn(frames, tokens, 3, heads, width, generator=torch.Generator().manual_seed(tokens))
    return list(numbers.to(DEVICE, dtype).permute(2, 0, 3, 1, 4).unbind(0))


def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log2_counts: torch.Tensor | None = None) -> torch.Tensor:
    return vision_attention(q.float(), k.float(), v.float(), log2_counts, form="torch")


@few
@given(
    tokens=st.sampled_from([1, 21, 64, 72, 130, 200]),
    fewer=st.integers(0, 20),
    width=st.sampled_from(WIDTHS),
    dtype=st.sampled_from([torch.bfloat16, torch.float16]),
    counted=st.booleans(),
)
def test_the_numbers_of_the_formula(tokens: int, fewer: int, width: int, dtype: torch.dtype, counted: bool) -> None:
    q, k, v = joint(2, tokens, 2, width, dtype)
    q = q[:, :, : max(1, tokens - fewer)]
    counts = torch.randint(1, 9, (tokens,)).float().log2().to(DEVICE) if counted else None
    found = vision_attention(q, k, v, counts, form="triton")
    assert found.dtype == dtype and found.shape == (2, q.shape[2], 2 * width)
    torch.testing.assert_close(found.float(), formula(q, k, v, counts), atol=2e-2, rtol=2e-2)


@few
@given(rows=st.sampled_from([64, 128]), step=st.sampled_from([32, 64, 128]), tokens=st.sampled_from([200, 256]))
def test_other_shapes_of_the_launch(rows: int, step: int, tokens: int) -> None:
    from inference.kernels.triton_forms.vision_attention import vision_attention as launch

    q, k, v = joint(1, tokens, 2, 80, torch.bfloat16)
    counts = torch.linspace(0, 3, tokens, device=DEVICE)
    found = launch(q, k, v, counts, rows=rows, step=step)
    torch.testing.assert_close(found.float(), formula(q, k, v, counts), atol=2e-2, rtol=2e-2)


@few
@given(tokens=st.integers(1, 40), most=st.sampled_from([1, 4, 20]))
def test_to_count_is_to_be_there_as_often(tokens: int, most: int) -> None:
    q, k, v = joint(1, tokens, 2, 80, torch.bfloat16)
    counts = torch.randint(1, most + 1, (tokens,), device=DEVICE)
    found = vision_attention(q, k, v, counts.float().log2(), form="triton")
    keys = torch.repeat_interleave(torch.arange(tokens, device=DEVICE), counts)
    repeated = vision_attention(q, k[:, :, keys], v[:, :, keys], form="triton")
    torch.testing.assert_close(found.float(), repeated.float(), atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("size", [30.0, 1000.0])
def test_scores_of_any_size(size: float) -> None:
    """One key takes all, or nearly; none overflows."""
    q, k, v = joint(1, 150, 1, 80, torch.bfloat16, size)
    found = vision_attention(q, k, v / size, form="triton")
    assert found.isfinite().all()
    torch.testing.assert_close(found.float(), formula(q, k, v / size), atol=2e-2, rtol=2e-2)


def test_views_that_cannot_be_moved_whole() -> None:
    q, k, v = (x[..., 1:81] for x in joint(1, 21, 2, 82, torch.bfloat16))
    torch.testing.assert_close(vision_attention(q, k, v, form="triton").float(), formula(q, k, v), atol=2e-2, rtol=2e-2)


@pytest.mark.skipif(INTERPRETED, reason="sizes of the model, for a GPU")
@pytest.mark.parametrize(("tokens", "counted"), [(1608, False), (978, True), (21, True)])
def test_sizes_of_the_model(tokens: int, counted: bool) -> None:
    q, k, v = joint(2, tokens, 16, 80, torch.bfloat16)
    counts = torch.randint(1, 9, (tokens,)).float().log2().to(DEVICE) if counted else None
    found = vision_attention(q, k, v, counts, form="triton")
    torch.testing.assert_close(found.float(), formula(q, k, v, counts), atol=2e-2, rtol=2e-2)
