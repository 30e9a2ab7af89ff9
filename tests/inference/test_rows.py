"""The integers of a step against a session's own account of itself: slots, positions, limits."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from inference.cache.session_cache import SessionCache
from inference.cache.store import ROWS_PER_PAGE, KVStore
from inference.model.plan import plan_step
from inference.model.rows import FIELDS, PagedView, RowGroup
from tests.inference.checkpoints import tiny_config

CONFIG = tiny_config(vocab_size=40)
P = CONFIG.vision.tokens_per_frame
STATES = torch.zeros(3, P, CONFIG.text.hidden_size)


def _session(store: KVStore, rows: int, frames: int, dropped: int) -> SessionCache:
    """A session that has seen so many rows and frames and forgotten its oldest frames, and a page of rows if it has two."""
    cache = store.new_cache()
    cache.reserve(rows, frames)
    cache.advance(rows, range(frames))
    cache.drop_frames(0, min(dropped, frames))
    if rows >= 2 * ROWS_PER_PAGE:
        cache.drop_rows(0, 1)
    return cache


_SESSION = st.tuples(
    st.integers(0, 150), st.integers(0, 5), st.integers(0, 5), st.integers(1, 5), st.integers(0, 3), st.integers(0, 1)
)


@given(sessions=st.lists(_SESSION, min_size=1, max_size=4), attend_all=st.booleans(), always=st.booleans())
def test_a_plan_says_what_each_row_is(sessions: list[tuple[int, ...]], attend_all: bool, always: bool) -> None:
    store = KVStore(CONFIG, torch.device("cpu"), torch.float32)
    groups, expected = [], []
    for number, (rows, frames, dropped, count, new, written) in enumerate(sessions):
        cache = _session(store, rows, frames, dropped)
        new, written = min(new, count), min(written, count - 1)
        # The last rows are image tokens.
        visible = [cache.frames + max(0, row + 1 - (count - new)) for row in range(count)]
        positions = [cache.next_position + count - new + i for i in range(new)]
        cache.reserve(count, new)
        groups.append(RowGroup(cache, list(range(count)), visible, STATES[:new] if new else None, positions, written))
        for row in range(written, count):
            seen = visible[row] or (cache.frames + new if attend_all else 0)
            at = cache.length + row
            expected.append(
                {
                    "token": row,
                    "source": -1,
                    "position": rows + row,
                    "query_position": rows + row if always or new else 0,
                    "slot": cache.self_table[at // ROWS_PER_PAGE] * ROWS_PER_PAGE + at % ROWS_PER_PAGE,
                    "session": number,
                    "self_limit": at + 1,
                    "cross_limit": seen * P,
                    "sees": int(visible[row] > 0),
                }
            )
    plan = plan_step(groups, page_rows=P, attend_all=attend_all, always_rotate=always)
    assert [{name: plan.fields[name][row] for name in FIELDS} for row in range(plan.rows)] == expected
    assert len(set(plan.fields["slot"])) == plan.rows
    assert len(set(plan.frame_pages)) == len(plan.frame_pages) and 0 not in plan.frame_pages
    assert [plan.fields["session"][row] for row in plan.last] == list(range(len(groups)))
    rows_on_device = plan.tensors(torch.device("cpu"))
    assert rows_on_device.slots.tolist() == plan.fields["slot"]
    for view, known in ((rows_on_device.self_view, plan.self_groups), (rows_on_device.cross_view, plan.cross_groups)):
        # What is read back from the tensors is what the host knows, padding of the tables apart.
        read = PagedView(view.tables, view.session, view.limits).host_groups()
        assert [(g.begin, g.end, list(g.limits)) for g in read] == [(g.begin, g.end, list(g.limits)) for g in known]
        for ours, theirs in zip(read, known, strict=True):
            assert list(ours.table[: len(theirs.table)]) == list(theirs.table)
            assert not any(ours.table[len(theirs.table) :])


def test_packing_leaves_padding_alone() -> None:
    store = KVStore(CONFIG, torch.device("cpu"), torch.float32)
    cache = store.new_cache()
    cache.reserve(2, 0)
    plan = plan_step([RowGroup(cache, [5, 6], [0, 0])], page_rows=P, attend_all=False, always_rotate=True, sources=None)
    packed = np.full((len(FIELDS), 4), 77, dtype=np.int32)
    plan.pack(packed)
    assert (packed[:, 2:] == 77).all() and packed[FIELDS.index("token"), :2].tolist() == [5, 6]
    one = plan_step([RowGroup(cache, [5], [0])], page_rows=P, attend_all=False, always_rotate=True, sessions=[9], sources={0: 9})
    assert (one.fields["source"], one.fields["session"], one.attends) == ([9], [9], False)
