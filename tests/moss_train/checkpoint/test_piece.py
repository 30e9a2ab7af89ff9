"""Ranges of elements as rectangles, and rectangles in common."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from moss_train.checkpoint.piece import Place, common_box, flat_boxes

_SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


def _slices(offsets: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(o, o + n) for o, n in zip(offsets, sizes, strict=True))


@given(shape=_SHAPES, data=st.data())
def test_a_range_is_cut_into_rectangles_in_its_order(shape: tuple[int, ...], data: st.DataObject) -> None:
    count = math.prod(shape)
    begin, end = sorted(data.draw(st.integers(0, count)) for _ in range(2))
    whole = torch.arange(count).view(shape)
    boxes = list(flat_boxes(shape, begin, end))
    found = [value for box in boxes for value in whole[_slices(*box)].reshape(-1).tolist()]
    assert found == list(range(begin, end))
    assert len(boxes) <= max(1, 2 * len(shape) - 1)


@given(shape=_SHAPES, data=st.data())
def test_what_rectangles_have_in_common(shape: tuple[int, ...], data: st.DataObject) -> None:
    def box() -> tuple[tuple[int, ...], tuple[int, ...]]:
        ends = [sorted(data.draw(st.integers(0, size)) for _ in range(2)) for size in shape]
        return tuple(a for a, _ in ends), tuple(b - a for a, b in ends)

    first, second = box(), box()
    counts = torch.zeros(shape)
    for offsets, sizes in (first, second):
        counts[_slices(offsets, sizes)] += 1
    common = common_box(first, second)
    assert (common is None) == (not bool((counts == 2).any()))
    if common is not None:
        assert bool((counts[_slices(*common)] == 2).all()) and math.prod(common[1]) == int((counts == 2).sum())


@given(rows=st.integers(2, 6), columns=st.integers(1, 5), data=st.data())
def test_a_range_of_a_fused_parameter_lands_in_its_parts(rows: int, columns: int, data: st.DataObject) -> None:
    """Two halves of a local parameter lie apart in the whole, as those of a gated MLP do."""
    local = torch.arange(2.0 * rows * columns)
    begin, end = sorted(data.draw(st.integers(0, local.numel())) for _ in range(2))
    whole = torch.full((5 * rows, columns), -1.0)
    for half in range(2):
        place = Place(
            "w", (5 * rows, columns), ((3 * half + 1) * rows, 0), (rows, columns), half * rows * columns, True, True, False
        )
        for piece in place.parts("optimizer.x.w", local[begin:end], begin, writes=True):
            whole[_slices(piece.offsets, piece.sizes)] = piece.values.view(piece.sizes)
    expected = torch.where((local >= begin) & (local < end), local, -1.0).view(2, rows, columns)
    assert torch.equal(whole[rows : 2 * rows], expected[0]) and torch.equal(whole[4 * rows :], expected[1])
    assert int((whole >= 0).sum()) == end - begin
