"""Cross-attention as one function, and which backend `auto` takes."""

from __future__ import annotations

from typing import Literal, overload

import torch
from torch import Tensor

from model.attention.cross import flash, varlen
from model.attention.cross.dense import dense_cross_attention
from model.attention.cross.flex import flex_cross_attention
from model.attention.cross.plan import CrossPlan
from model.attention.cross.reference import torch_cross_attention, torch_cross_attention_with_lse
from model.errors import InputError

BACKENDS = ("auto", "torch", "flex", "flash", "varlen", "dense")


SMALL = 1 << 20
"""Rows times keys up to which a GPU is faster with torch's own kernels, whose calls cost less time to start."""


def choose(device: str, dtype: torch.dtype, width: int, scores: int, *, with_lse: bool, has_flash: bool) -> str:
    """What `auto` means: by device, dtype and size, never by trial. docs/benchmarks/cross-attention.md has the measurements.

    Args:
        device, dtype: of the queries.
        width: of a head.
        scores: rows times keys.
        with_lse: whether the log-sums are wanted; torch's own kernels do not have them.
        has_flash: whether flash-attn-4 runs here, and its changing order of sums is no harm.
    """
    if device != "cuda" or dtype not in (torch.bfloat16, torch.float16) or (scores <= SMALL and not with_lse):
        return "torch"
    return "flash" if has_flash and width == flash.WIDTH else "flex"


def check_training(backend: str, device: torch.device, dtype: torch.dtype, width: int) -> None:
    """Refuses a backend that cannot train a decoder, before the first step would find out on the ranks that have cross layers.

    Args:
        backend: auto | torch | flex | flash | varlen | dense.
        device, dtype: of the decoder.
        width: of a head.

    Raises:
        InputError: a backend that does not run there, or has no backward pass.
    """
    if backend == "flash":
        if torch.are_deterministic_algorithms_enabled():
            raise InputError(
                "attention.cross is flash with train.deterministic true, but flash-attn-4 adds gradients over block lists in "
                "changing order; use attention.cross=auto"
            )
        flash.check(device, dtype, width)
    if backend == "varlen":
        varlen.check(device, dtype)
    if backend == "flex" and device.type != "cuda":
        raise InputError("attention.cross is flex, which has no backward pass without a CUDA device; use auto")


@overload
def cross_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan, *, backend: str = ..., with_lse: Literal[False] = ...
) -> Tensor: ...
@overload
def cross_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan, *, backend: str = ..., with_lse: Literal[True]
) -> tuple[Tensor, Tensor]: ...
def cross_attention(
    q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan, *, backend: str = "auto", with_lse: bool = False
) -> Tensor | tuple[Tensor, Tensor]:
    """Attention from rows to frames.

    Args:
        q: [T, heads, d], normed and rotated.
        k, v: [F, P, groups, d]; k rotated and normed. Consecutive heads share the keys of a group.
        plan: what every row sees.
        backend: auto | torch | flex | flash | varlen | dense.
        with_lse: return the log-sums too.

    Returns:
        [T, heads * d]; zero for rows that attend to no frame. With the log-sums also fp32 [T, heads], the natural
        logarithm of the sum of the exponentiated scaled scores, -inf for rows that attend to no frame: differentiable,
        except in the varlen backend. The dense backend has none.

    Raises:
        InputError: a backend that does not exist, does not run here, or has no log-sums where they are wanted.
    """
    if backend not in BACKENDS:
        raise InputError(f"attention.cross is {backend!r}; use one of {', '.join(BACKENDS)}")
    if not plan.attends:
        out = q.new_zeros(q.shape[0], q.shape[1] * q.shape[2])
        return (out, q.new_full(q.shape[:2], -torch.inf, dtype=torch.float32)) if with_lse else out
    if backend == "auto":
        scores = plan.num_rows * plan.num_keys
        has_flash = flash.available(q.device) and not torch.are_deterministic_algorithms_enabled()
        backend = choose(q.device.type, q.dtype, q.shape[-1], scores, with_lse=with_lse, has_flash=has_flash)
    if not with_lse and backend in ("torch", "dense"):
        return (torch_cross_attention if backend == "torch" else dense_cross_attention)(q, k, v, plan)
    result = _with_lse(backend, q, k, v, plan)
    return result if with_lse else result[0]


def _with_lse(backend: str, q: Tensor, k: Tensor, v: Tensor, plan: CrossPlan) -> tuple[Tensor, Tensor]:
    if backend == "torch":
        return torch_cross_attention_with_lse(q, k, v, plan)
    if backend == "dense":
        raise InputError("attention.cross is dense, which has no log-sums; use auto, flex or torch")
    if backend == "flash":
        return flash.flash_cross_attention(q, k, v, plan)
    if backend == "varlen":
        return varlen.varlen_cross_attention(q, k, v, plan)
    return flex_cross_attention(q, k, v, plan)
