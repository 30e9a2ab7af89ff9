"""Pooling of the patch grid; the class token is kept apart."""

from __future__ import annotations

from typing import Any

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


class _Averages(torch.autograd.Function):
    """Averages of squares out of a state with rows behind the grid; the gradient is written once, as large as the state."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, grid: int, stride: int) -> Tensor:  # type: ignore[override]
        ctx.shape, ctx.grid, ctx.stride = state.shape, grid, stride
        return pool_patches(state[:, : 1 + grid**2], grid, "average", stride)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        grid, stride = ctx.grid, ctx.stride
        side, patches = grid // stride, grid**2
        found = gradient.new_empty(ctx.shape)  # [F, rows, C]
        found[:, 0] = gradient[:, 0]
        squares = found[:, 1 : 1 + patches].unflatten(1, (side, stride, side, stride))  # [F, side, stride, side, stride, C]
        squares.copy_((gradient[:, 1:] / stride**2).unflatten(1, (side, 1, side, 1)))
        found[:, 1 + patches :] = 0
        return found, None, None


def pool_state(state: Tensor, grid: int, mode: str, stride: int) -> Tensor:
    """As `pool_patches`, of a state [F, rows, C] that may have more rows behind the class token and the patches."""
    if mode == "average" and state.requires_grad and torch.is_grad_enabled():
        pooled: Tensor = _Averages.apply(state, grid, stride)  # type: ignore[no-untyped-call]
        return pooled
    return pool_patches(state[:, : 1 + grid**2], grid, mode, stride)
