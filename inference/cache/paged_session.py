"""What one session has seen: two tables of pages and a few integers."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from inference.cache.pool import KVPool
from model.errors import InputError


class PagedSessionCache:
    """Rows and frames that a session keeps, in the order in which later rows see them.

    `length` rows lie in the pages of `self_table`, one frame in each page of `cross_table`. Eviction leaves both
    compact, so that what a new row sees is a prefix: all `frames` pages, and the `length` rows before it. Pages are
    shared by forks and copied before the first write that would show in another session.

    Args:
        self_pool: pages of text positions.
        cross_pool: pages of frames.
    """

    def __init__(self, self_pool: KVPool, cross_pool: KVPool) -> None:
        self.self_pool, self.cross_pool = self_pool, cross_pool
        # The lists are changed in place only: the finalizer holds them.
        self.self_table: list[int] = []
        self.cross_table: list[int] = []
        self.length = 0
        """Rows that are kept."""
        self.frames = 0
        """Pages of `cross_table` that hold something; the table may have reserved ones behind them."""
        self.next_position = 0
        """Rotary position of the next row; differs from `length` once rows were evicted."""
        self.row_positions: list[int] = []
        """Rotary position of each kept row, increasing."""
        self.frame_positions: list[int] = []
        """Rotary position of each kept frame, that of its image token."""
        self.version = 0
        """Changes with every change of a table."""
        self._finalizer = weakref.finalize(self, _abandon, self_pool, self.self_table, cross_pool, self.cross_table)
        self._finalizer.atexit = False

    @property
    def num_bytes(self) -> int:
        """Bytes of the pages held, shared ones counted in full."""
        return len(self.self_table) * self.self_pool.page_bytes + len(self.cross_table) * self.cross_pool.page_bytes

    def reserve(self, rows: int, frames: int) -> None:
        """Make sure that the next `rows` rows and `frames` frames have pages which no other session reads.

        Raises:
            OutOfPagesError: a pool is full; the session is as before.
        """
        page_rows = self.self_pool.page_rows
        shared = rows > 0 and self.length % page_rows > 0 and self._is_shared(self.length // page_rows)
        need_rows = max(0, -(-(self.length + rows) // page_rows) - len(self.self_table))
        need_frames = max(0, self.frames + frames - len(self.cross_table))
        if not (shared or need_rows or need_frames):
            return
        taken = self.self_pool.take(need_rows + shared)
        try:
            new_frames = self.cross_pool.take(need_frames)
        except InputError:
            self.self_pool.allocator.release(taken)
            raise
        if shared:
            number, own = self.length // page_rows, taken.pop()
            self.self_pool.copy_page(self.self_table[number], own)
            self.self_pool.allocator.release([self.self_table[number]])
            self.self_table[number] = own
        self.self_table += taken
        self.cross_table += new_frames
        self.version += 1

    def row_slots(self, rows: int) -> list[int]:
        """Slots of the next `rows` rows in the self pool; `reserve` them first."""
        size, table = self.self_pool.page_rows, self.self_table
        return [table[row // size] * size + row % size for row in range(self.length, self.length + rows)]

    def frame_pages(self, frames: int) -> list[int]:
        """Pages of the next `frames` frames in the cross pool; `reserve` them first."""
        pages = self.cross_table[self.frames : self.frames + frames]
        assert len(pages) == frames, "reserve the frames first"
        return pages

    def frame_slots(self, frames: int) -> list[int]:
        """Slots of all rows of the next `frames` frames, frame by frame."""
        size = self.cross_pool.page_rows
        return [page * size + row for page in self.frame_pages(frames) for row in range(size)]

    def advance(self, rows: int, frame_positions: Sequence[int] = ()) -> None:
        """The next `rows` rows and the frames at these positions are written.

        Args:
            rows: rows that a step has added.
            frame_positions: rotary position of each frame that came with them.
        """
        self.row_positions += range(self.next_position, self.next_position + rows)
        self.frame_positions += frame_positions
        self.length += rows
        self.frames += len(frame_positions)
        self.next_position += rows

    def rewind(self, length: int, frames: int) -> None:
        """Forget everything behind `length` rows and `frames` frames, and give their pages back.

        Raises:
            InputError: more rows or frames than there are.
        """
        if not (0 <= length <= self.length and 0 <= frames <= self.frames):
            raise InputError(
                f"cannot rewind a session of {self.length} rows and {self.frames} frames to {length} rows and {frames} frames; "
                "rewinding only shortens"
            )
        if length < self.length:
            self.next_position = self.row_positions[length]
        del self.row_positions[length:], self.frame_positions[frames:]
        self.length, self.frames = length, frames
        self._cut(self.self_pool, self.self_table, -(-length // self.self_pool.page_rows), len(self.self_table))
        self._cut(self.cross_pool, self.cross_table, frames, len(self.cross_table))

    def fork(self) -> PagedSessionCache:
        """A second session that has seen the same. Pages are shared; a partly filled one is copied when either writes."""
        other = PagedSessionCache(self.self_pool, self.cross_pool)
        used = -(-self.length // self.self_pool.page_rows)
        other.self_table += self.self_table[:used]
        other.cross_table += self.cross_table[: self.frames]
        self.self_pool.allocator.share(other.self_table)
        self.cross_pool.allocator.share(other.cross_table)
        other.length, other.frames, other.next_position = self.length, self.frames, self.next_position
        other.row_positions += self.row_positions
        other.frame_positions += self.frame_positions
        return other

    def drop_frames(self, begin: int, count: int) -> None:
        """Forget `count` frames from the `begin`-th kept one on."""
        _check_range("frames", begin, count, self.frames)
        del self.frame_positions[begin : begin + count]
        self.frames -= count
        self._cut(self.cross_pool, self.cross_table, begin, begin + count)

    def drop_rows(self, first_page: int, pages: int) -> None:
        """Forget the rows of `pages` full pages of `self_table` from the `first_page`-th on; positions stay as they are."""
        size = self.self_pool.page_rows
        _check_range("full pages of rows", first_page, pages, self.length // size)
        del self.row_positions[first_page * size : (first_page + pages) * size]
        self.length -= pages * size
        self._cut(self.self_pool, self.self_table, first_page, first_page + pages)

    def release(self) -> None:
        """Give all pages back; the session is empty afterwards."""
        self.rewind(0, 0)
        self.next_position = 0

    def _is_shared(self, number: int) -> bool:
        return number < len(self.self_table) and self.self_pool.allocator.count(self.self_table[number]) > 1

    def _cut(self, pool: KVPool, table: list[int], begin: int, end: int) -> None:
        if begin < end:
            pool.allocator.release(table[begin:end])
            del table[begin:end]
            self.version += 1


def _check_range(what: str, begin: int, count: int, present: int) -> None:
    if not (0 <= begin and 0 <= count and begin + count <= present):
        raise InputError(f"cannot drop {count} {what} from number {begin} on: the session keeps {present}")


def _abandon(self_pool: KVPool, self_table: list[int], cross_pool: KVPool, cross_table: list[int]) -> None:
    """A session that nobody refers to any more: its pages go back to the pools."""
    self_pool.allocator.abandon(self_table)
    cross_pool.allocator.abandon(cross_table)
