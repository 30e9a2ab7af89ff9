"""Rotation, head norms and writing into pages, in torch."""

from __future__ import annotations

import torch

from inference.kernels.torch_forms.norms import rms_norm
from model.text.rope import apply_rope

FP8_MAX = 448.0
"""Largest float8_e4m3fn."""
SMALLEST = 1e-12
"""Bound of a head's largest magnitude, so that a head of zeros has a scale."""


def norm_rotate(x: torch.Tensor, weight: torch.Tensor, eps: float, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """[N, heads, dim], normalised by head, then rotated."""
    return apply_rope(rms_norm(x, weight, eps), cos, sin)


def rotate_norm(x: torch.Tensor, weight: torch.Tensor, eps: float, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """[N, heads, dim], rotated, then normalised by head."""
    return rms_norm(apply_rope(x, cos, sin), weight, eps)


def store(pages: torch.Tensor, slots: torch.Tensor, rows: torch.Tensor, scales: torch.Tensor | None) -> None:
    """Write rows into slots of pages.

    Args:
        pages: [pages, page_rows, kv_heads, dim].
        slots: int64 [n], page * page_rows + row.
        rows: [n, kv_heads, dim].
        scales: fp32 [pages, page_rows, kv_heads] where the pages are float8_e4m3fn: amax / 448 of each head.
    """
    page, place = slots // pages.shape[1], slots % pages.shape[1]
    if scales is None:
        pages[page, place] = rows.to(pages.dtype)
        return
    wide = rows.float()
    scale = wide.abs().amax(-1).clamp(min=SMALLEST) / FP8_MAX
    scales[page, place] = scale
    # Written as bytes: not every build of torch has an indexed write of float8.
    pages.view(torch.uint8)[page, place] = (wide / scale[..., None]).to(pages.dtype).view(torch.uint8)
