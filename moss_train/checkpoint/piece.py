"""Rectangles of global tensors: what a rank writes of its state, and what it wants back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

Box = tuple[tuple[int, ...], tuple[int, ...]]
"""Offsets and sizes along every axis."""


@dataclass(frozen=True)
class Piece:
    """A rectangle of a global tensor whose values lie in this rank's memory."""

    key: str
    shape: tuple[int, ...]
    """Shape of the whole tensor."""
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    values: Tensor
    """As many elements as `sizes` says, in row-major order; written in its own dtype."""
    writes: bool = True
    """Whether this rank writes it; other ranks with the same values do not."""
    padded: bool = False
    """Whether another layout may store another number of rows; rows that are not stored become zero."""

    @property
    def num_bytes(self) -> int:
        return self.values.numel() * self.values.element_size()

    @property
    def name(self) -> str:
        """Its name inside a safetensors file: `decoder.layers.0.mlp.linear_fc1.weight@128,0`."""
        return f"{self.key}@{','.join(map(str, self.offsets))}"


def flat_boxes(shape: tuple[int, ...], begin: int, end: int) -> Iterator[Box]:
    """Cuts a range of a tensor's elements in row-major order into rectangles, each of which is contiguous in that order.

    Of a matrix these are at most three: a part of the first row, whole rows, a part of the last row.

    Args:
        shape: of the tensor.
        begin, end: the range, [begin, end).
    """
    if begin >= end:
        return
    if len(shape) < 2:
        yield ((begin,), (end - begin,)) if shape else ((), ())
        return
    row = math.prod(shape[1:])
    first, last = -(-begin // row), end // row  # the whole rows
    if first > last:  # inside one row
        yield from _inside_row(shape, last, begin, end)
        return
    yield from _inside_row(shape, first - 1, begin, first * row)
    if first < last:
        yield (first, *[0] * (len(shape) - 1)), (last - first, *shape[1:])
    yield from _inside_row(shape, last, last * row, end)


def _inside_row(shape: tuple[int, ...], index: int, begin: int, end: int) -> Iterator[Box]:
    start = index * math.prod(shape[1:])
    for offsets, sizes in flat_boxes(shape[1:], begin - start, end - start):
        yield (index, *offsets), (1, *sizes)


def common_box(a: Box, b: Box) -> Box | None:
    """The rectangle that two have in common; None where they have none."""
    begins = tuple(max(x, y) for x, y in zip(a[0], b[0], strict=True))
    ends = tuple(min(x + n, y + m) for x, n, y, m in zip(*a, *b, strict=True))
    if any(begin >= end for begin, end in zip(begins, ends, strict=True)):
        return None
    return begins, tuple(end - begin for begin, end in zip(begins, ends, strict=True))


@dataclass(frozen=True)
class Place:
    """Where a contiguous part of a local parameter lies in the global tensor that it belongs to."""

    key: str
    shape: tuple[int, ...]
    """Of the global tensor."""
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    start: int
    """Its first element, counted in the local parameter."""
    first_replica: bool
    """Whether no other rank is to write the same values."""
    first_model_replica: bool
    """The same among the ranks of one data-parallel index, which share replicated parameters."""
    padded: bool

    @property
    def count(self) -> int:
        """Elements."""
        return math.prod(self.sizes)

    def whole(self, values: Tensor) -> Piece:
        """Itself as a piece.

        Args:
            values: of the local parameter, contiguous.
        """
        own = values.reshape(-1)[self.start : self.start + self.count]
        return Piece(self.key, self.shape, self.offsets, self.sizes, own, self.first_replica, self.padded)

    def parts(self, key: str, values: Tensor, begin: int, *, writes: bool) -> Iterator[Piece]:
        """The pieces that a range of the local parameter covers of it.

        Args:
            key: name of the global tensor that the values belong to.
            values: of the range, one-dimensional.
            begin: the range's first element, counted in the local parameter.
            writes: whether this rank writes them.
        """
        low, high = max(begin, self.start), min(begin + values.numel(), self.start + self.count)
        position = low - begin
        for offsets, sizes in flat_boxes(self.sizes, low - self.start, high - self.start):
            count = math.prod(sizes)
            where = tuple(a + b for a, b in zip(self.offsets, offsets, strict=True))
            yield Piece(key, self.shape, where, sizes, values[position : position + count], writes, self.padded)
            position += count
