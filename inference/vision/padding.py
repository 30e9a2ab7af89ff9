"""What stands for padding that is not computed: one token for the patches of each square that is pooled into one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inference.vision.attention.keys import Keys, count_keys
from inference.vision.region import Region
from model.config import VisionConfig


@dataclass(frozen=True)
class MergedTokens:
    """Tokens behind a region's own, the G-th of them for the G-th square that holds padding."""

    states: Tensor
    """[1, G, D] before the first layer: the mean of the patches that each stands for, the same in every frame."""
    keys: Keys
    """How often tokens are attended to, 1 + patches + pad times in all."""
    place: Tensor
    """int64 [side * side]: the token that stands for a square's padding; 0 where there is none."""
    share: Tensor
    """[side * side, 1]: the part of a square that is padding."""


def merge_padding(region: Region, vision: VisionConfig, black: Tensor, pad: int) -> MergedTokens:
    """Lays out the tokens of a region.

    Patches of padding are all zero and differ by their position alone, so those of one pooled square are nearly the same
    token. One goes through the layers for them; it sees the frame, and so says what theirs would have said of it.

    Args:
        region: not the whole frame.
        vision: dimensions; pooled.
        black: [1 + patches, D] of a frame of zeros before the first layer.
        pad: zero rows behind all tokens, which are attended to as well.
    """
    grid, stride = vision.grid_size, vision.pool_stride
    side = grid // stride
    skipped = region.skipped(grid)  # places among the 1 + grid * grid tokens
    patches = skipped - 1
    squares = patches // grid // stride * side + patches % grid // stride
    holding, member, counts = squares.unique(return_inverse=True, return_counts=True)
    own = 1 + region.rows * region.columns
    first_zero = own + len(holding)
    keys = torch.cat(
        [torch.arange(own), own + torch.arange(len(holding)).repeat_interleave(counts), first_zero + torch.arange(pad)]
    )
    place, share = torch.zeros(side * side, dtype=torch.int64), torch.zeros(side * side, 1)
    place[holding] = own + torch.arange(len(holding))
    share[holding, 0] = counts / stride**2
    device = black.device
    sums = torch.zeros(len(holding), black.shape[1], device=device)
    sums.index_add_(0, member.to(device), black[skipped.to(device)].float())
    states = sums / counts.to(device)[:, None]
    counted = Keys(*(x.to(device) for x in count_keys(keys, first_zero + pad)))
    return MergedTokens(states[None].to(black.dtype), counted, place.to(device), share.to(device, black.dtype))
