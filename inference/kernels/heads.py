"""What happens to queries, keys and values between a projection and the pages: rotation, head norms, writing. One launch each."""

from __future__ import annotations

import torch

from inference.kernels.torch_forms import heads as torch_heads
from model.kernels.select import Form, choose_form
from model.text.rope import apply_rope


def rotate_and_store(
    qkv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    *,
    scales: torch.Tensor | None = None,
    raw_keys: torch.Tensor | None = None,
    form: Form | None = None,
) -> torch.Tensor:
    """A self layer's rows: queries and keys are rotated, keys and values go into pages.

    Args:
        qkv: [N, (heads + 2 * kv_heads) * dim], as the joint projection gives it.
        cos, sin: [N, dim] of the rows' positions; both halves of the last axis are equal.
        keys, values: [pages, page_rows, kv_heads, dim] of one layer, changed in place; float8_e4m3fn with `scales`. Triton stores
            values that are NaN or infinite as 0: its attention multiplies them by 0 for other sessions; the key still is NaN.
        slots: int64 [N], page * page_rows + row; several rows may name one slot of page 0, whose content is never read.
        scales: fp32 [2, pages, page_rows, kv_heads], changed in place.
        raw_keys: [pages, page_rows, kv_heads, dim] for the keys as projected, in the dtype of `qkv`; changed in place.
        form: overrides the choice by device.

    Returns:
        Rotated queries [N, heads, dim].
    """
    if choose_form(qkv.device, form) == "triton":
        from inference.kernels.triton_forms.heads import rotate_and_store as launch

        return launch(qkv, cos, sin, keys, values, slots, scales, raw_keys)
    kv_heads, dim = keys.shape[2], keys.shape[3]
    split = qkv.view(qkv.shape[0], -1, dim)
    heads = split.shape[1] - 2 * kv_heads
    rotated = apply_rope(split[:, : heads + kv_heads], cos, sin)
    torch_heads.store(keys, slots, rotated[:, heads:], None if scales is None else scales[0])
    torch_heads.store(values, slots, split[:, heads + kv_heads :], None if scales is None else scales[1])
    if raw_keys is not None:
        torch_heads.store(raw_keys, slots, split[:, heads : heads + kv_heads], None)
    return rotated[:, :heads]


def norm_rotate(
    queries: torch.Tensor, weight: torch.Tensor, eps: float, cos: torch.Tensor, sin: torch.Tensor, *, form: Form | None = None
) -> torch.Tensor:
    """A cross layer's queries: normalised by head, then rotated.

    Args:
        queries: [N, heads, dim], contiguous.
        weight: [dim].
        eps: added to the mean square.
        cos, sin: [N, dim]; 1 and 0 leave a row unrotated.
        form: overrides the choice by device.

    Returns:
        As `queries`.
    """
    if choose_form(queries.device, form) == "triton":
        from inference.kernels.triton_forms.heads import norm_rotate as launch

        return launch(queries, weight, eps, cos, sin)
    return torch_heads.norm_rotate(queries, weight, eps, cos, sin)


def store_frames(
    kv: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    weight: torch.Tensor,
    eps: float,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    *,
    scales: torch.Tensor | None = None,
    raw_keys: torch.Tensor | None = None,
    form: Form | None = None,
) -> None:
    """A cross layer's new frames: keys are rotated, then normalised by head; keys and values go into pages.

    Args:
        kv: [f * P, 2 * kv_heads * dim], as the joint projection gives it; P rows a frame.
        cos, sin: [f, dim] of the frames' positions.
        weight: [dim] of the key norm.
        eps: added to the mean square.
        keys, values, slots, scales, raw_keys, form: as in `rotate_and_store`; slots int64 [f * P].
    """
    if choose_form(kv.device, form) == "triton":
        from inference.kernels.triton_forms.heads import store_frames as launch

        launch(kv, cos, sin, weight, eps, keys, values, slots, scales, raw_keys)
        return
    kv_heads, dim = keys.shape[2], keys.shape[3]
    rows, frames = kv.shape[0], cos.shape[0]
    if frames == 0:
        return
    split = kv.view(rows, 2 * kv_heads, dim)
    raw = split[:, :kv_heads].reshape(frames, rows // frames * kv_heads, dim)  # the heads of a frame's rows share its position
    ready = torch_heads.rotate_norm(raw, weight, eps, cos, sin).view(rows, kv_heads, dim)
    torch_heads.store(keys, slots, ready, None if scales is None else scales[0])
    torch_heads.store(values, slots, split[:, kv_heads:], None if scales is None else scales[1])
    if raw_keys is not None:
        torch_heads.store(raw_keys, slots, split[:, :kv_heads], None)
