"""What is copied and what goes: properties of the rules."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.shards.cache.plan import GIB, Disk, Old, Unit, choose, evict, most

SIZES = st.integers(0, 50)


@given(sizes=st.lists(SIZES), room=SIZES)
def test_what_is_chosen_fits_and_nothing_that_would_fit_is_left_out(sizes: list[int], room: int) -> None:
    units = [Unit("a", str(number), size) for number, size in enumerate(sizes)]
    chosen = choose(units, room)
    assert [unit for unit in units if unit in chosen] == chosen
    left = room
    for unit in units:
        assert (unit in chosen) == (unit.bytes <= left)
        left -= unit.bytes if unit in chosen else 0
    assert left >= 0


@given(old=st.lists(st.tuples(SIZES, st.integers(0, 5), st.booleans())), room=st.integers(-20, 200))
def test_the_least_recently_used_go_no_more_than_needed_and_never_one_in_use(old: list[tuple[int, int, bool]], room: int) -> None:
    entries = [Old(str(number), size, used, busy) for number, (size, used, busy) in enumerate(old)]
    gone = evict(entries, room)
    by_key = {entry.key: entry for entry in entries}
    stay = [entry for entry in entries if entry.key not in gone]
    assert not any(by_key[key].in_use for key in gone)
    idle = [entry for entry in stay if not entry.in_use]
    assert sum(entry.bytes for entry in stay) <= room or not idle
    assert all(by_key[key].last_used <= entry.last_used for key in gone for entry in idle)
    if gone:  # without the last one it would not have been enough
        assert sum(entry.bytes for entry in stay) + by_key[gone[-1]].bytes > room


def test_the_limit_and_the_reserve_hold_together() -> None:
    disk = Disk(total=1000 * GIB, free=100 * GIB)
    assert most(disk, held=0, max_gib=0) == 50 * GIB
    assert most(disk, held=30 * GIB, max_gib=0) == 80 * GIB  # what the copies take now is theirs
    assert most(disk, held=30 * GIB, max_gib=40) == 40 * GIB
    assert most(disk, held=0, max_gib=60) == 50 * GIB
    assert most(Disk(1000 * GIB, 10 * GIB), held=0, max_gib=0) == 0
