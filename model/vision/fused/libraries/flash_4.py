"""FlashAttention 4, where the package flash-attn-4 is installed and the GPU is a Hopper."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from model.attention.cross import flash

_KERNEL_MULTIPLE, _RESULT_MULTIPLE = 16, 32
"""Up to 4.0.0b36 the backward kernel for Hopper rounds a head's width up to 16 where it sums gradients of queries, but what reads
these sums rounds to 32: at a width of 80 gradients of queries come out wrong."""


def problem(device: torch.device) -> str | None:
    """Why it cannot be tried; None if it can."""
    if flash.available(device):
        return None
    return "flash-attn-4 is not installed (pip install flash-attn-4), or the GPU is no Hopper (compute capability 9)"


def forward(qkv: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """qkv [F, T, 3, heads, d] -> mixed [F, T, heads, d], logsumexp [F, heads, T]."""
    from flash_attn.cute.interface import _flash_attn_fwd  # type: ignore[import-not-found, unused-ignore]

    out, sums = _flash_attn_fwd(*qkv.unbind(2), softmax_scale=qkv.shape[-1] ** -0.5, return_lse=True)[:2]
    return out, (sums,)


@contextmanager
def _one_width(width: int) -> Iterator[None]:
    """Within, sums of queries' gradients are read with the width that they were written with."""
    from flash_attn.cute import interface  # type: ignore[import-not-found, unused-ignore]

    if -(-width // _KERNEL_MULTIPLE) * _KERNEL_MULTIPLE % _RESULT_MULTIPLE == 0:
        yield
        return
    convert = interface._bwd_postprocess_convert

    def converted(*args: Any, **kwargs: Any) -> Any:
        return convert(*args, **(kwargs | {"hdim_multiple_of": _KERNEL_MULTIPLE}))

    converted.compile_cache = convert.compile_cache  # type: ignore[attr-defined]  # it looks for it under its own name
    interface._bwd_postprocess_convert = converted
    try:
        yield
    finally:
        interface._bwd_postprocess_convert = convert


def backward(dmixed: Tensor, qkv: Tensor, mixed: Tensor, state: tuple[Tensor, ...]) -> Tensor:
    """Gradient of qkv."""
    from flash_attn.cute.interface import _flash_attn_bwd  # type: ignore[import-not-found, unused-ignore]

    dqkv = torch.empty_like(qkv)
    dq, dk, dv = dqkv.unbind(2)
    with _one_width(qkv.shape[-1]):
        _flash_attn_bwd(
            *qkv.unbind(2), mixed, dmixed.contiguous(), state[0], qkv.shape[-1] ** -0.5,
            deterministic=torch.are_deterministic_algorithms_enabled(), dq=dq, dk=dk, dv=dv,
        )  # fmt: skip
    return dqkv
