"""Which samples share a pack."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.packing.select import select_packs

sizes = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 12)), min_size=1, max_size=40)


@given(sizes=sizes, most=st.one_of(st.none(), st.integers(1, 4)))
def test_packs_stay_within_all_bounds_and_use_every_sample_once(sizes: list[tuple[int, int]], most: int | None) -> None:
    packs = select_packs(sizes, 50, 12, most)
    assert sorted(i for pack in packs for i in pack) == list(range(len(sizes)))
    for pack in packs:
        assert sum(sizes[i][0] for i in pack) <= 50
        assert sum(sizes[i][1] for i in pack) <= 12
        assert most is None or len(pack) <= most
        assert pack == sorted(pack)
    assert packs == sorted(packs)


@given(sizes=sizes)
def test_no_two_packs_could_have_been_one(sizes: list[tuple[int, int]]) -> None:
    packs = select_packs(sizes, 50, 12)
    loads = [(sum(sizes[i][0] for i in p), sum(sizes[i][1] for i in p)) for p in packs]
    for a, left in enumerate(loads):
        for right in loads[a + 1 :]:
            assert left[0] + right[0] > 50 or left[1] + right[1] > 12


def test_frames_alone_can_fill_a_pack() -> None:
    assert select_packs([(5, 8), (5, 8), (5, 4)], 100, 12) == [[0, 2], [1]]
