"""What one session has seen: two tables of pages and a few integers."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inference.cache.frame_page import FramePage
from inference.cache.pool import KVPool
from model.errors import InputError
from model.kernels.select import launching_on

if TYPE_CHECKING:
    from inference.cache.archive import ArchivedFrame
    from inference.cache.policies.runner import PolicyRunner


class SessionCache:
    """Rows and frames that a session keeps, in the order in which later rows see them.

    `length` rows lie in the pages of `self_table`, frames in the pages of `cross_table`. Eviction leaves both
    compact, so that what a new row sees is a prefix: all `frames` pages, and the `length` rows before it. Pages are
    shared by forks and copied before the first write that would show in another session.

    Args:
        self_pool: pages of text positions.
        cross_pool: pages of frames.
        policy: what it forgets as it grows; None: nothing.
    """

    def __init__(self, self_pool: KVPool, cross_pool: KVPool, policy: PolicyRunner | None = None) -> None:
        self.self_pool, self.cross_pool, self.policy = self_pool, cross_pool, policy
        # The lists are changed in place only: the finalizer holds them.
        self.self_table: list[int] = []
        self.cross_table: list[int] = []
        self.length = 0
        """Rows that are kept."""
        self.next_position = 0
        """Rotary position of the next row; differs from `length` once rows were evicted."""
        self.row_positions: list[int] = []
        """Rotary position of each kept row, increasing."""
        self.pages: list[FramePage] = []
        """What each page of `cross_table` stands for; the table may have reserved pages behind them."""
        self.frames_seen = 0
        """Frames since the session began."""
        self.frame_times: deque[float] = deque()
        """Stream times in seconds of frames that the next steps bring, in order; policies that count seconds read them."""
        self.archive: tuple[ArchivedFrame, ...] = ()
        """Frames put away in the host's memory, oldest first."""
        self.renumberings = 0
        """How often positions were numbered anew."""
        self.version = 0
        """Changes with every change of a table."""
        self._finalizer = weakref.finalize(self, _abandon, self_pool, self.self_table, cross_pool, self.cross_table)
        self._finalizer.atexit = False

    @property
    def frames(self) -> int:
        """Pages of `cross_table` that hold something; without a policy that pools, the frames that are kept."""
        return len(self.pages)

    @property
    def frame_positions(self) -> list[int]:
        """Rotary position of each kept page, of its last row where they differ."""
        return [page.positions[-1] for page in self.pages]

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
            self._exchange(self.self_pool, self.self_table, number, own)
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
        """The next `rows` rows and the frames at these positions are written; then the policy forgets what it must.

        Args:
            rows: rows that a step has added.
            frame_positions: rotary position of each frame that came with them.
        """
        self.row_positions += range(self.next_position, self.next_position + rows)
        for position in frame_positions:
            time = self.frame_times.popleft() if self.frame_times else None
            self.pages.append(FramePage((position,), self.frames_seen, time=time))
            self.frames_seen += 1
        self.length += rows
        self.next_position += rows
        if self.policy is not None:
            self.policy.settle(self)

    def prompt_boundary(self) -> None:
        """A prompt of the user comes next: frames that were put away may be fetched for it."""
        if self.policy is not None:
            # Outside of any step: another session's may be under way.
            with self.cross_pool.lock, launching_on(self.cross_pool.device):
                self.policy.prompt_boundary(self)

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
        self.frames_seen -= self.frames - frames
        del self.row_positions[length:], self.pages[frames:]
        self.length = length
        self._cut(self.self_pool, self.self_table, -(-length // self.self_pool.page_rows), len(self.self_table))
        self._cut(self.cross_pool, self.cross_table, frames, len(self.cross_table))

    def fork(self) -> SessionCache:
        """A second session that has seen the same. Pages are shared; a partly filled one is copied when either writes."""
        other = SessionCache(self.self_pool, self.cross_pool, self.policy)
        used = -(-self.length // self.self_pool.page_rows)
        other.self_table += self.self_table[:used]
        other.cross_table += self.cross_table[: self.frames]
        self.self_pool.allocator.share(other.self_table)
        self.cross_pool.allocator.share(other.cross_table)
        other.length, other.next_position = self.length, self.next_position
        other.row_positions += self.row_positions
        other.pages += self.pages
        other.frames_seen, other.frame_times = self.frames_seen, self.frame_times.copy()
        other.archive, other.renumberings = self.archive, self.renumberings
        return other

    def drop_frames(self, begin: int, count: int) -> None:
        """Forget `count` pages of frames from the `begin`-th kept one on."""
        _check_range("frames", begin, count, self.frames)
        del self.pages[begin : begin + count]
        self._cut(self.cross_pool, self.cross_table, begin, begin + count)

    def insert_frames(self, begin: int, table: Sequence[int], pages: Sequence[FramePage]) -> None:
        """Put pages that the caller has taken and filled before the `begin`-th kept one."""
        _check_range("frames", begin, 0, self.frames)
        self.cross_table[begin:begin] = table
        self.pages[begin:begin] = pages
        self.version += 1

    def drop_rows(self, first_page: int, pages: int) -> None:
        """Forget the rows of `pages` full pages of `self_table` from the `first_page`-th on; positions stay as they are."""
        size = self.self_pool.page_rows
        _check_range("full pages of rows", first_page, pages, self.length // size)
        del self.row_positions[first_page * size : (first_page + pages) * size]
        self.length -= pages * size
        self._cut(self.self_pool, self.self_table, first_page, first_page + pages)

    def own_pages(self) -> None:
        """Copy every page that another session reads too: what follows changes keys where they are.

        Raises:
            OutOfPagesError: a pool is full; nothing is copied then in that pool.
        """
        used = -(-self.length // self.self_pool.page_rows)
        for pool, table, count in ((self.self_pool, self.self_table, used), (self.cross_pool, self.cross_table, self.frames)):
            shared = [i for i in range(count) if pool.allocator.count(table[i]) > 1]
            for number, own in zip(shared, pool.take(len(shared)), strict=True):
                self._exchange(pool, table, number, own)

    def release(self) -> None:
        """Give all pages back; the session is empty afterwards."""
        self.rewind(0, 0)
        self.next_position = self.frames_seen = 0
        self.archive = ()
        self.frame_times.clear()

    def _is_shared(self, number: int) -> bool:
        return number < len(self.self_table) and self.self_pool.allocator.count(self.self_table[number]) > 1

    def _exchange(self, pool: KVPool, table: list[int], number: int, own: int) -> None:
        pool.copy_page(table[number], own)
        pool.allocator.release([table[number]])
        table[number] = own
        self.version += 1

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
