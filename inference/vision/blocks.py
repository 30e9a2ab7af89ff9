"""The arithmetic of the tower as functions of tensors: what torch.compile fuses and CUDA graphs capture.

A layer is cut one norm later than the published modules: it takes its own normalised input and returns the next layer's, so
that a residual sum and the norm behind it are one kernel. The order of operations, and so of roundings, is the modules'.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.vision.attention.keys import Keys
from inference.vision.between import Between, Norm, layer_norm
from inference.vision.products import Matrix, Operand, multiply, operand, product

Attend = Callable[[Tensor, Tensor, Tensor, Keys | None], Tensor]

PATCH_ALIGNMENT = 16
"""The width of a patch (588) is filled up to a multiple of this with zeros: matrix products read 16 bytes at a time."""


class Layer(NamedTuple):
    """Weights of one layer and of the norm behind it."""

    qkv: Matrix
    """[3 D, D]: queries, keys, values."""
    out: Matrix
    up: Matrix
    down: Matrix
    norm_mlp: Norm
    gate_attention: Tensor
    """[1], tanh taken; 1 in the local layers."""
    gate_mlp: Tensor
    next_norm: Norm
    """Of the next layer's input; of the tower's `layernorm_post` behind the last local layer."""


class PixelScale(NamedTuple):
    """Mean and deviation of pixels, fp32 [3, 1, 1] each, on the device: made in a call, they could not be captured."""

    mean: Tensor
    deviation: Tensor


class Positions(NamedTuple):
    """What is added to the patches: one row for frames of one kind, or one a frame."""

    tile: Tensor
    """[1 or F, 1, D]"""
    shared: Tensor
    """[T, D]"""
    own: Tensor
    """[1 or F, T, D]"""


def normalise(pixels: Tensor, scale: PixelScale, dtype: torch.dtype) -> Tensor:
    """`model.vision.encoder.normalise_pixels`, operation by operation: uint8 [F, 3, ...] -> `dtype`; a float is only cast."""
    if pixels.is_floating_point():
        return pixels.to(dtype)
    return pixels.float().div(255).sub(scale.mean).div(scale.deviation).to(dtype)


def cut_patches(pixels: Tensor, scale: PixelScale, patch: int, width: int, dtype: torch.dtype) -> Tensor:
    """uint8, or normalised, [F, C, rows * patch, columns * patch] -> normalised [F, rows * columns, width], row-major.

    Args:
        width: at least C * patch * patch; what is above it is 0.
    """
    frames, channels, height, breadth = pixels.shape
    cut = normalise(pixels, scale, dtype).reshape(frames, channels, height // patch, patch, breadth // patch, patch)
    cut = cut.permute(0, 2, 4, 1, 3, 5).reshape(frames, -1, channels * patch * patch)
    return F.pad(cut, (0, width - cut.shape[-1]))


def embed(
    pixels: Tensor,
    scale: PixelScale,
    patches: Matrix,
    first: Tensor,
    positions: Positions,
    norm: Norm,
    next_norm: Norm,
    patch: int,
    pad: int,
    eps: float,
    fp8: bool,
    merged: Tensor | None,
) -> tuple[Tensor, Operand]:
    """Pixels to the first layer's input.

    Args:
        pixels: [F, C, rows * patch, columns * patch].
        first: [D], the class token.
        pad: zero rows behind the tokens, which take part as keys and values.

        merged: [1, G, D] states of the tokens that stand for padding; None if every patch is computed.

    Returns:
        The state [F, 1 + rows * columns + G + pad, D] and its norm for the first layer, in fp8 if that multiplies so.
    """
    weight = patches.weight
    x = product(cut_patches(pixels, scale, patch, weight.shape[1], weight.dtype), patches) + positions.tile
    x = torch.cat([first.expand(x.shape[0], 1, -1), x], dim=1)
    x = layer_norm(x + positions.shared + positions.own, norm, eps)
    if merged is not None:
        x = torch.cat([x, merged.expand(x.shape[0], -1, -1)], dim=1)
    x = F.pad(x, (0, 0, 0, pad))
    return x, operand(layer_norm(x, next_norm, eps), fp8=fp8)


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """[F, T, 3 D] -> three views [F, heads, T, D / heads]."""
    frames, tokens, width = qkv.shape
    q, k, v = qkv.view(frames, tokens, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
    return q, k, v


def block(
    x: Tensor,
    y: Operand,
    layer: Layer,
    keys: Keys | None,
    fp8: bool,
    attend: Attend,
    between: Between,
    heads: int,
    eps: float,
) -> tuple[Tensor, Operand]:
    """One layer.

    Args:
        x: the state [F, T, D].
        y: its norm.
        keys: how often tokens are attended to, where some count several times; None: each once.
        fp8: whether the next layer multiplies in fp8: its input is then rounded here.

    Returns:
        The next state and its norm for the next layer.
    """
    q, k, v = split_heads(multiply(y, layer.qkv, x.dtype), heads)
    seen = between.enter(attend(q, k, v, keys), layer.out.scale is not None)
    x, y = between.add_norm(x, seen, layer.out, layer.gate_attention, layer.norm_mlp, eps, layer.up.scale is not None)
    inner = between.up(y, layer.up, x.dtype, layer.down.scale is not None)
    return between.add_norm(x, inner, layer.down, layer.gate_mlp, layer.next_norm, eps, fp8)


def enter_global(y: Tensor, tile: Tensor, next_norm: Norm, eps: float, fp8: bool) -> tuple[Tensor, Operand]:
    """What lies between the stacks: the post-normed state [F, T, D] with its tile's vector [1 or F, 1, D] added, and its norm."""
    x = y + tile
    return x, operand(layer_norm(x, next_norm, eps), fp8=fp8)


def pool_region(
    x: Tensor, rows: int, columns: int, stride: int, side: int, mode: str, place: Tensor | None, share: Tensor | None
) -> Tensor:
    """Pools the computed patches of one kept state, straight to the whole frame's tokens.

    Args:
        x: [F, 1 + rows * columns + more, D], the class token first.
        stride: patches along a side of the square that becomes one token; 1 where nothing is pooled.
        side: squares along a side of the frame.
        mode: average | max | none.
        place: int64 [side * side], for each square the token that stands for its padding; None if there is none anywhere.
        share: [side * side, 1], the part of the square that is padding.

    Returns:
        [F, 1 + side * side, D].
    """
    patches = x[:, 1 : 1 + rows * columns].unflatten(1, (rows, columns))  # [F, rows, columns, D]
    fill = float("-inf") if mode == "max" else 0.0
    patches = F.pad(patches, (0, 0, 0, side * stride - columns, 0, side * stride - rows), value=fill)
    squares = patches.unflatten(1, (side, stride)).unflatten(3, (side, stride))  # [F, side, stride, side, stride, D]
    pooled = (squares.amax((2, 4)) if mode == "max" else squares.mean((2, 4))).flatten(1, 2)
    if place is not None and share is not None:
        rest = x[:, place]
        pooled = torch.where(share > 0, torch.maximum(pooled, rest), pooled) if mode == "max" else pooled + share * rest
    return torch.cat([x[:, :1], pooled], dim=1)
