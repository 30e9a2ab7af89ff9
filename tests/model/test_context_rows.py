"""Rows for context parallelism: padding that changes nothing, and shares that own every row once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.context_rows import rows_by_rank, share_rows, zigzag_rows
from model.errors import InputError
from model.rows import IGNORE_INDEX, PackedRows
from tests.model.small import packed_rows, small_config

SIZES = st.sampled_from([1, 2, 3, 4])
LENGTHS = st.lists(st.integers(0, 13), min_size=1, max_size=5).filter(any)


def _rows(lengths: list[int], seed: int) -> PackedRows:
    """Samples of these lengths; every second one has a frame in its middle."""
    samples = [(n, [n // 2] if n and i % 2 == 0 else []) for i, n in enumerate(lengths)]
    return packed_rows(small_config(), samples, seed)


@given(chunks=st.lists(st.integers(0, 5), min_size=1, max_size=5), size=SIZES)
def test_every_row_is_owned_once_and_all_ranks_do_the_same_work(chunks: list[int], size: int) -> None:
    cu_seqlens = np.cumsum([0, *(2 * size * n for n in chunks)])
    shares = [zigzag_rows(cu_seqlens, size, rank) for rank in range(size)]
    assert np.array_equal(np.sort(np.concatenate(shares)), np.arange(cu_seqlens[-1]))
    assert np.array_equal(np.concatenate(shares), rows_by_rank(cu_seqlens, size))
    positions = np.concatenate([np.arange(2 * size * n) for n in chunks])
    keys = [int((positions[share] + 1).sum()) for share in shares]  # that a causal row looks at
    assert len({len(share) for share in shares}) == 1 and len(set(keys)) == 1
    for share in shares:
        sample = np.searchsorted(cu_seqlens, share, side="right")
        assert (np.diff(sample) >= 0).all() and (np.diff(share)[np.diff(sample) == 0] > 0).all()


@given(batches=st.lists(LENGTHS, min_size=1, max_size=3), size=SIZES, multiple=st.sampled_from([1, 2, 3, 16]))
def test_shared_rows_hold_what_was_given_and_padding_that_nobody_counts(
    batches: list[list[int]], size: int, multiple: int
) -> None:
    given_rows = [_rows(lengths, i) for i, lengths in enumerate(batches)]
    by_rank = [share_rows(given_rows, size, rank, multiple) for rank in range(size)]
    for index, rows in enumerate(given_rows):
        shares = [share[index] for share in by_rank]
        if size == 1:
            assert shares[0].rows is rows and shares[0].targets is rows.targets and shares[0].origin is None
            assert shares[0].take(rows.targets, 7) is rows.targets  # type: ignore[arg-type]
            continue
        padded, places, origins = shares[0].rows, shares[0].places, [share.origin for share in shares]
        assert places is not None and padded.targets is not None and rows.targets is not None
        for name in ("input_ids", "position_ids", "frame_begin", "frame_end", "targets"):
            assert torch.equal(getattr(padded, name)[places], getattr(rows, name)), name
        padding = torch.ones(padded.num_rows, dtype=torch.bool)
        padding[places] = False
        assert (padded.targets[padding] == IGNORE_INDEX).all()
        assert (padded.frame_begin[padding] >= padded.frame_end[padding]).all()
        assert padded.num_rows == by_rank[0][0].rows.num_rows, "micro-batches of one schedule differ in length"
        assert padded.num_rows % (size * multiple) == 0 and (padded.cu_seqlens.diff() % (2 * size) == 0).all()
        # The samples keep their order, their rows and their frames; positions go on through the padding.
        assert torch.equal(padded.cu_frames[:-1], rows.cu_frames) and padded.cu_frames[-1] == rows.num_frames
        for first, last in zip(padded.cu_seqlens[:-1].tolist(), padded.cu_seqlens[1:].tolist(), strict=True):
            assert torch.equal(padded.position_ids[first:last], torch.arange(last - first))
        # Every given row has one owner, and values by row go where the rows go.
        owned = torch.cat([origin[origin >= 0] for origin in origins if origin is not None])
        assert torch.equal(owned.sort().values, torch.arange(rows.num_rows))
        for rank, share in enumerate(shares):
            own = torch.from_numpy(zigzag_rows(padded.cu_seqlens.numpy().astype(np.int64), size, rank))
            assert share.targets is not None and torch.equal(share.targets, padded.targets[own])
            assert torch.equal(share.take(rows.targets, IGNORE_INDEX), share.targets)
            assert torch.equal(share.take(rows.input_ids, 0), padded.input_ids[own])


def test_rows_that_are_not_padded_are_refused() -> None:
    with pytest.raises(
        InputError, match=r"sample 1 of the micro-batch has 6 rows, not a multiple of 4 \(2 x parallel.context 2\)"
    ):
        zigzag_rows(np.array([0, 8, 14]), 2, 0)


def test_padding_is_no_more_than_the_units_need() -> None:
    shares = share_rows([_rows([9, 6, 1], 1), _rows([16], 2)], 2, 0)
    assert [share.rows.cu_seqlens.tolist() for share in shares] == [[0, 12, 20, 24, 24], [0, 16, 24]]
