"""Tables on the device are those of the sessions, however many come and go and however wide they grow."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.cache.session_cache import SessionCache
from inference.cache.store import KVStore
from inference.graphs.tables import SCRATCH_SESSION, SessionTables
from inference.graphs.upload import Upload
from tests.inference.checkpoints import tiny_config

CPU = torch.device("cpu")
CONFIG = tiny_config(vocab_size=40)
ROWS = 3

_CHANGE = st.tuples(
    st.integers(0, 5), st.sampled_from(["grow", "shrink", "end", "nothing"]), st.integers(0, 200), st.integers(0, 9)
)


def _change(cache: SessionCache, act: str, rows: int, frames: int) -> None:
    if act == "grow":
        cache.reserve(rows, frames)
        cache.advance(rows, range(frames))
    elif act == "shrink":
        cache.rewind(min(rows, cache.length), min(frames, cache.frames))


@given(
    steps=st.lists(st.tuples(st.lists(_CHANGE, max_size=4), st.sets(st.integers(0, 5), min_size=1, max_size=ROWS)), max_size=12)
)
def test_rows_hold_the_tables_of_their_sessions(steps: list[tuple[list[tuple[int, str, int, int]], set[int]]]) -> None:
    store = KVStore(CONFIG, CPU, torch.float32)
    tables = SessionTables(ROWS, (1, 1), CPU, Upload(CPU))
    caches = [store.new_cache() for _ in range(6)]
    places: dict[int, object] = {}
    for changes, stepping in steps:
        for number, act, rows, frames in changes:
            if act == "end":
                caches[number] = store.new_cache()
                places.pop(number, None)
            _change(caches[number], act, rows, frames)
        order = sorted(stepping)
        found = tables.update([caches[number] for number in order])
        assert len(set(found)) == len(found) and SCRATCH_SESSION not in found
        for number, row in zip(order, found, strict=True):
            for held, pages in (
                (tables.self_tables[row], caches[number].self_table),
                (tables.cross_tables[row], caches[number].cross_table),
            ):
                assert held[: len(pages)].tolist() == pages
            places[number] = tables.place(caches[number])
        assert not tables.self_tables[SCRATCH_SESSION].any() and not tables.cross_tables[SCRATCH_SESSION].any()
        # A session that made way does not take its old place for its own.
        live = [tables.place(cache) for cache in caches if tables.place(cache) is not None]
        assert len({id(place) for place in live}) == len(live) <= ROWS


def test_a_session_that_steps_keeps_its_row_while_others_come() -> None:
    store = KVStore(CONFIG, CPU, torch.float32)
    tables = SessionTables(2, (1, 1), CPU, Upload(CPU))
    stays = store.new_cache()
    (row,) = tables.update([stays])
    place = tables.place(stays)
    visitors = [store.new_cache() for _ in range(5)]
    for visitor in visitors:
        assert tables.update([visitor, stays])[1] == row
        assert tables.place(stays) is place
    gone = store.new_cache()
    tables.update([gone, visitors[0]])
    assert tables.place(stays) is None
