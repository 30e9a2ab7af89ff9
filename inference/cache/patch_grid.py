"""How many tokens of a frame are left when its patches are pooled two by two."""

from __future__ import annotations

import math

from model.errors import InputError


def grid_side(tokens_per_frame: int) -> int:
    """Patches along one side of a pooled frame: its tokens are the class token and a square of patches.

    Raises:
        InputError: they are not.
    """
    side = math.isqrt(tokens_per_frame - 1)
    if side < 1 or side * side != tokens_per_frame - 1:
        raise InputError(f"a frame of {tokens_per_frame} tokens is no class token and square of patches; it cannot be pooled")
    return side


def pooled_tokens(tokens_per_frame: int) -> int:
    """Tokens of a frame whose patches are pooled two by two: 101 become 26."""
    return 1 + (-(-grid_side(tokens_per_frame) // 2)) ** 2
