"""Attention of the vision tower: all tokens of a frame attend to all of that frame, of which some may count several times."""

from __future__ import annotations

import torch

from model.kernels.select import Form, choose_form

COPY_ENGINE = (9, 0)
"""Compute capability of the engine that moves tiles (Hopper)."""

_TYPES = (torch.bfloat16, torch.float16)
_MOST_WIDTH = 256
"""Of a head: sums of a tile wider than this do not fit into registers."""


def vision_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    log2_counts: torch.Tensor | None = None,
    *,
    form: Form | None = None,
) -> torch.Tensor:
    """softmax(q k^T / sqrt(d)) v; a key that counts n times weighs as n equal keys would.

    Args:
        q: [F, heads, T, d].
        k: [F, heads, S, d], S at least 1.
        v: [F, heads, S, d].
        log2_counts: fp32 [S], logarithms to base 2 of how often keys count; None: each once.
        form: overrides the choice by device. The Triton form takes 16-bit types, and widths that are multiples of 8.

    Returns:
        [F, T, heads * d]. Scores and sums are fp32; weights are rounded to the dtype of v before they meet it. Scores may be as
        large as 2^28: the roundings of larger ones are themselves too large for an exponential.
    """
    fits = q.dtype in _TYPES and q.shape[-1] % 8 == 0 and q.shape[-1] <= _MOST_WIDTH
    if form is None and (not fits or (q.is_cuda and torch.cuda.get_device_capability(q.device) < COPY_ENGINE)):
        form = "torch"
    if choose_form(q.device, form) == "triton":
        from inference.kernels.triton_forms.vision_attention import vision_attention as launch

        return launch(_movable(q), _movable(k), _movable(v), log2_counts)
    return _formula(q, k, v, log2_counts)


def _formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log2_counts: torch.Tensor | None) -> torch.Tensor:
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5  # [F, heads, T, S]
    if log2_counts is not None:
        scores = scores + log2_counts * torch.log(torch.tensor(2.0))
    mixed: torch.Tensor = scores.softmax(-1).to(v.dtype) @ v
    return mixed.transpose(1, 2).flatten(2)


def _movable(x: torch.Tensor) -> torch.Tensor:
    """The same numbers where the copy engine can read them: rows whole, everything at a multiple of 16 bytes."""
    aligned = x.stride(-1) == 1 and all(s % 8 == 0 for s in x.stride()[:-1]) and x.data_ptr() % 16 == 0
    return x if aligned else x.contiguous()


@torch.library.custom_op("moss_inference::vision_attention", mutates_args=())
def traced_vision_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log2_counts: torch.Tensor | None = None
) -> torch.Tensor:
    """`vision_attention` as one node of a traced graph."""
    return vision_attention(q, k, v, log2_counts)


@traced_vision_attention.register_fake
def _shape(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, log2_counts: torch.Tensor | None = None) -> torch.Tensor:
    return q.new_empty(q.shape[0], q.shape[2], q.shape[1] * q.shape[3])
