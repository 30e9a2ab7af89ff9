"""Padding of the vocabulary tables. The padding rows never reach a softmax and are cut off in every export."""

from __future__ import annotations

import math


def padded_rows(rows: int, tensor: int) -> int:
    """Rows of a vocabulary table: the next multiple of 8 and of the tensor-parallel size."""
    step = math.lcm(8, tensor)
    return -(-rows // step) * step
