"""Sizes of the parallel groups against the number of ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.layout import place_of
from moss_train.parallel.sizes import check_sizes


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))
def test_places_are_all_different(tensor: int, pipeline: int, data: int) -> None:
    sizes = ParallelConfig(tensor=tensor, pipeline=pipeline)
    assert check_sizes(sizes, tensor * pipeline * data) == data
    places = [place_of(rank, sizes, data) for rank in range(tensor * pipeline * data)]
    assert len(set(places)) == len(places)
    # Tensor neighbours are consecutive ranks: they share a machine.
    assert [place.tensor for place in places] == list(range(tensor)) * (pipeline * data)


@pytest.mark.parametrize(
    ("sizes", "ranks", "message"),
    [
        (ParallelConfig(tensor=2, pipeline=2), 6, "does not divide the 6 ranks"),
        (ParallelConfig(virtual_pipeline=2), 1, "needs at least 2 pipeline stages"),
        (ParallelConfig(pipeline=2, stage_layers=[1, 2, 3]), 2, "3 entries for 2 stages"),
        (ParallelConfig(sequence_parallel=True), 1, "set parallel.tensor to 2 or more"),
    ],
)
def test_what_cannot_work_is_named(sizes: ParallelConfig, ranks: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_sizes(sizes, ranks)
