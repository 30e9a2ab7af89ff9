"""How many frames are encoded in one call: full chunks first, then what is left in few calls of sizes that are ready."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple


class Piece(NamedTuple):
    """One call of the tower."""

    begin: int
    """First frame."""
    frames: int
    """How many."""
    size: int
    """Frames that the call computes; what is above `frames` is padding."""


def split_frames(frames: int, chunk: int, sizes: Sequence[int] = (), *, fixed: bool = False) -> Iterator[Piece]:
    """Pieces that hold every frame once, in order.

    Args:
        frames: how many.
        chunk: frames in a full call, at least 1.
        sizes: smaller calls that are ready too (captured graphs).
        fixed: calls must have the size `chunk` or one of `sizes`, because each size is compiled. A remainder above half a chunk
            is then padded to a chunk; a smaller one is made of `sizes`, and where these lack it, padded to the next larger size.
    """
    begin = 0
    ready = sorted({size for size in sizes if 0 < size < chunk} | {chunk}, reverse=True)
    while begin < frames:
        left = frames - begin
        if left >= chunk or not fixed:
            count = min(left, chunk)
            size = count
        elif 2 * left > chunk:
            count, size = left, chunk
        else:
            size = next((size for size in ready if size <= left), ready[-1])
            count = min(size, left)
        yield Piece(begin, count, size)
        begin += count
