"""Tokens of which some count several times as keys: they stand for several tokens that are alike."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Keys(NamedTuple):
    """How often tokens are attended to, said twice: to count n times is to be there n times."""

    repeated: Tensor
    """int64 [S]: tokens, each as often as it counts."""
    log2_counts: Tensor
    """fp32 [T]: logarithms to base 2 of how often each token counts."""


def count_keys(repeated: Tensor, tokens: int) -> Keys:
    """int64 [S] with each of so many tokens at least once -> both forms."""
    return Keys(repeated, torch.bincount(repeated, minlength=tokens).float().log2())
