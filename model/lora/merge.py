"""Adapters into the matrices that they adapt, as plain tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Factors:
    """The two matrices of one adapter, whole."""

    a: Tensor
    """[rank, in]"""
    b: Tensor
    """[out, rank]; in a fused matrix's own order of rows."""


def merge(base: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """W + scale * B A, computed in fp32 and cast back once.

    Args:
        base: W [out, in], or the same share of its rows or columns as of `b`'s rows or `a`'s columns.
        a: [rank, in].
        b: [out, rank], rows in the order of `base`.
        scale: alpha / rank.

    Returns:
        The merged matrix, in the dtype of `base`.
    """
    return torch.addmm(base.float(), b.float(), a.float(), alpha=scale).to(base.dtype)
