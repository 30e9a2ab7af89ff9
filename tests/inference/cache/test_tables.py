"""Pages against plain lists: whatever sessions do, each keeps its own rows, and no page is lost or owned by mistake."""

from __future__ import annotations

import gc
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inference.cache.allocator import OutOfPagesError, PageAllocator
from inference.cache.pool import KVPool, PoolShape
from inference.cache.session_cache import SessionCache
from model.errors import InputError

CPU = torch.device("cpu")
ROWS, PATCHES = 4, 3


def make_pools(pages: int, *, fixed: bool) -> tuple[KVPool, KVPool]:
    def pool(rows: int) -> KVPool:
        shape = PoolShape(layers=1, page_rows=rows, kv_heads=1, head_dim=2, raw_keys=True)
        return KVPool(shape, pages, CPU, torch.float32, fixed=fixed)

    return pool(ROWS), pool(PATCHES)


def put_marks(pool: KVPool, slots: list[int], marks: list[int]) -> None:
    """Rows that can be told apart: keys = mark, values = -mark, raw keys = mark / 2."""
    rows = torch.tensor(marks, dtype=torch.float32).view(-1, 1, 1).expand(-1, 1, 2)
    pool.write(0, torch.tensor(slots, dtype=torch.int64), rows, -rows, rows / 2)


def read_marks(pool: KVPool, table: list[int], limit: int) -> list[int]:
    keys, values = pool.gather(0, table, limit)
    assert torch.equal(keys, -values)
    return [int(mark) for mark in keys[:, 0, 0].tolist()]


@dataclass
class Shadow:
    """A session as plain lists."""

    cache: SessionCache
    rows: list[tuple[int, int]] = field(default_factory=list)
    """(mark, position)"""
    frames: list[tuple[int, int]] = field(default_factory=list)
    next_position: int = 0


class Sessions(RuleBasedStateMachine):
    """Sessions of one pair of pools, each beside its shadow."""

    fixed = False

    def __init__(self) -> None:
        super().__init__()
        self.pools = make_pools(24 if self.fixed else 2, fixed=self.fixed)
        self.live = [Shadow(SessionCache(*self.pools))]
        self.mark = 0

    def _pick(self, data: st.DataObject) -> Shadow:
        return self.live[data.draw(st.integers(0, len(self.live) - 1), label="session")]

    @rule(data=st.data(), rows=st.integers(0, 11), frames=st.integers(0, 3))
    def step(self, data: st.DataObject, rows: int, frames: int) -> None:
        shadow = self._pick(data)
        cache = shadow.cache
        before = (list(cache.self_table), list(cache.cross_table), cache.version)
        try:
            cache.reserve(rows, frames)
        except OutOfPagesError:
            assert self.fixed
            assert before == (cache.self_table, cache.cross_table, cache.version)
            return
        if before[:2] != (cache.self_table, cache.cross_table):
            assert cache.version != before[2]
        marks = list(range(self.mark + 1, self.mark + 1 + rows + frames))
        self.mark += rows + frames
        put_marks(self.pools[0], cache.row_slots(rows), marks[:rows])
        put_marks(self.pools[1], cache.frame_slots(frames), [mark for mark in marks[rows:] for _ in range(PATCHES)])
        positions = [shadow.next_position + i for i in range(frames)]
        cache.advance(rows, positions)
        shadow.rows += [(mark, shadow.next_position + i) for i, mark in enumerate(marks[:rows])]
        shadow.frames += list(zip(marks[rows:], positions, strict=True))
        shadow.next_position += rows

    @rule(data=st.data())
    def rewind(self, data: st.DataObject) -> None:
        shadow = self._pick(data)
        rows = data.draw(st.integers(0, len(shadow.rows)))
        frames = data.draw(st.integers(0, len(shadow.frames)))
        shadow.cache.rewind(rows, frames)
        if rows < len(shadow.rows):
            shadow.next_position = shadow.rows[rows][1]
        del shadow.rows[rows:], shadow.frames[frames:]

    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        shadow = self._pick(data)
        if len(self.live) < 5:
            self.live.append(Shadow(shadow.cache.fork(), list(shadow.rows), list(shadow.frames), shadow.next_position))

    @rule(data=st.data())
    def drop_frames(self, data: st.DataObject) -> None:
        shadow = self._pick(data)
        begin = data.draw(st.integers(0, len(shadow.frames)))
        count = data.draw(st.integers(0, len(shadow.frames) - begin))
        shadow.cache.drop_frames(begin, count)
        del shadow.frames[begin : begin + count]

    @rule(data=st.data())
    def drop_rows(self, data: st.DataObject) -> None:
        shadow = self._pick(data)
        full = len(shadow.rows) // ROWS
        begin = data.draw(st.integers(0, full))
        count = data.draw(st.integers(0, full - begin))
        shadow.cache.drop_rows(begin, count)
        del shadow.rows[begin * ROWS : (begin + count) * ROWS]

    @rule(data=st.data(), collected=st.booleans())
    def end(self, data: st.DataObject, collected: bool) -> None:
        shadow = self._pick(data)
        self.live.remove(shadow)
        if not collected:
            shadow.cache.release()
        if not self.live:
            self.live.append(Shadow(SessionCache(*self.pools)))

    @invariant()
    def every_session_keeps_what_it_has_seen(self) -> None:
        for shadow in self.live:
            cache = shadow.cache
            assert (cache.length, cache.frames) == (len(shadow.rows), len(shadow.frames))
            assert cache.next_position == shadow.next_position
            assert cache.row_positions == [position for _, position in shadow.rows]
            assert cache.frame_positions == [position for _, position in shadow.frames]
            assert read_marks(self.pools[0], cache.self_table, cache.length) == [mark for mark, _ in shadow.rows]
            seen = read_marks(self.pools[1], cache.cross_table, cache.frames * PATCHES)
            assert seen == [mark for mark, _ in shadow.frames for _ in range(PATCHES)]

    @invariant()
    def pages_are_counted(self) -> None:
        for pool, tables in zip(
            self.pools,
            ([shadow.cache.self_table for shadow in self.live], [shadow.cache.cross_table for shadow in self.live]),
            strict=True,
        ):
            held = [page for table in tables for page in table]
            assert 0 not in held
            assert all(len(set(table)) == len(table) for table in tables)
            assert pool.allocator.used_pages == len(set(held))
            assert all(pool.allocator.count(page) == held.count(page) for page in range(pool.pages))


class FixedSessions(Sessions):
    fixed = True


limits = settings(max_examples=25, stateful_step_count=25)
TestGrowing = Sessions.TestCase
TestGrowing.settings = limits
TestFixed = FixedSessions.TestCase
TestFixed.settings = limits


def test_a_forgotten_session_gives_its_pages_back() -> None:
    pools = make_pools(4, fixed=True)
    cache = SessionCache(*pools)
    cache.reserve(5, 2)
    assert (pools[0].allocator.used_pages, pools[1].allocator.used_pages) == (2, 2)
    del cache
    gc.collect()
    assert (pools[0].allocator.used_pages, pools[1].allocator.used_pages) == (0, 0)


def test_a_full_pool_says_what_to_do_and_takes_nothing() -> None:
    allocator = PageAllocator(3)
    with pytest.raises(OutOfPagesError, match="3 pages are needed and 2 of 2 are free; end a session"):
        allocator.take(3)
    assert allocator.used_pages == 0
    assert allocator.take(2) == [1, 2]


def test_growing_moves_everything_and_says_so() -> None:
    pool, _ = make_pools(2, fixed=False)
    put_marks(pool, [4, 5], [8, 9])
    generation = pool.generation
    pool.take(5)
    assert pool.generation != generation and pool.pages >= 6
    assert read_marks(pool, [1], 2) == [8, 9]
    assert pool.raw_keys(0)[1, :2, 0, 0].tolist() == [4.0, 4.5]
    with pytest.raises(InputError, match="fixed at 2 pages"):
        make_pools(2, fixed=True)[0].grow(3)


def test_fp8_pages_hold_what_the_format_can_hold() -> None:
    shape = PoolShape(layers=2, page_rows=3, kv_heads=2, head_dim=16, fp8=True)
    pool = KVPool(shape, 4, CPU, torch.float32)
    generator = torch.Generator().manual_seed(0)
    keys, values = (torch.randn(5, 2, 16, generator=generator) * 7 for _ in range(2))
    pool.write(1, torch.tensor([3, 4, 5, 9, 10]), keys, values)
    pool.grow(6)
    for table in ([1, 3], [1, 2]):
        found = pool.gather(1, table, 5 if table == [1, 3] else 3)
        for got, want in zip(found, (keys, values), strict=True):
            got, want = got[:5], want[: len(got)]
            # Three bits of mantissa: half a step of 2^-3 of each number, and the smallest step near 0.
            bound = want.abs() / 16 + want.abs().amax(-1, keepdim=True) / 448 * 2**-9
            assert ((got - want).abs() <= bound).all()
    assert pool.page_bytes == 2 * 3 * 2 * 2 * (16 + 4)
    pool.copy_page(1, 4)
    assert torch.equal(pool.gather(1, [4], 3)[0], pool.gather(1, [1], 3)[0])


def test_bytes_are_those_of_the_tensors() -> None:
    shape = PoolShape(layers=3, page_rows=5, kv_heads=2, head_dim=4, raw_keys=True)
    pool = KVPool(shape, 7, CPU, torch.bfloat16)
    tensors = [pool.keys(i) for i in range(3)] + [pool.values(i) for i in range(3)] + [pool.raw_keys(i) for i in range(3)]
    assert pool.num_bytes == sum(t.numel() * t.element_size() for t in tensors)
