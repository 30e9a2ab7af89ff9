"""Pooling of the patch grid; the class token is kept apart."""

from __future__ import annotations

import torch
from torch import Tensor


def pool_patches(features: Tensor, grid: int, mode: str, stride: int) -> Tensor:
    """[F, 1 + grid * grid, C] -> [F, 1 + (grid / stride) ** 2, C], row-major, class token first.

    Args:
        features: class token and the patches in row-major order.
        grid: patches along one side.
        mode: average | max | none; none returns the features as they are.
        stride: side of the square that becomes one token; divides `grid`.
    """
    if mode == "none":
        return features
    side = grid // stride
    squares = features[:, 1:].unflatten(1, (side, stride, side, stride))  # [F, side, stride, side, stride, C]
    pooled = squares.mean((2, 4)) if mode == "average" else squares.amax((2, 4))
    return torch.cat([features[:, :1], pooled.flatten(1, 2)], dim=1)
