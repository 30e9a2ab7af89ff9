"""Which pages of a pool are taken, and by how many sessions."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Sequence

from model.errors import InputError

SCRATCH_PAGE = 0
"""Never handed out: padding rows of a fixed-shape step write there, and nobody reads it."""


class OutOfPagesError(InputError):
    """A pool has fewer free pages than a session needs."""


class PageAllocator:
    """Free pages and reference counts of a pool. Lowest page first, so that one session's pages tend to be neighbours.

    Sessions of several threads may take and give back.

    Args:
        pages: pages of the pool, the scratch page included.
    """

    def __init__(self, pages: int) -> None:
        if pages < 1:
            raise InputError(f"a pool has {pages} pages; it needs at least the scratch page")
        self._counts = [0] * pages
        self._free = list(range(SCRATCH_PAGE + 1, pages))  # sorted, hence a heap
        self._abandoned: deque[list[int]] = deque()
        self._lock = threading.RLock()

    @property
    def pages(self) -> int:
        """All pages, the scratch page included."""
        return len(self._counts)

    @property
    def free_pages(self) -> int:
        self._collect()
        return len(self._free)

    @property
    def used_pages(self) -> int:
        """Pages that at least one session holds."""
        return self.pages - 1 - self.free_pages

    def count(self, page: int) -> int:
        """How many sessions hold a page."""
        self._collect()
        return self._counts[page]

    def extend(self, pages: int) -> None:
        """The pool has grown to `pages` pages."""
        with self._lock:
            for page in range(self.pages, pages):
                self._counts.append(0)
                heapq.heappush(self._free, page)

    def take(self, pages: int) -> list[int]:
        """Hand out pages that nobody holds.

        Raises:
            OutOfPagesError: fewer are free; none is taken then.
        """
        self._collect()
        with self._lock:
            if pages > len(self._free):
                raise OutOfPagesError(
                    f"{pages} pages are needed and {len(self._free)} of {self.pages - 1} are free; "
                    "end a session, bound its memory by a policy, or give the cache more memory"
                )
            taken = [heapq.heappop(self._free) for _ in range(pages)]
            for page in taken:
                self._counts[page] = 1
        return taken

    def share(self, pages: Sequence[int]) -> None:
        """One more session holds these pages."""
        with self._lock:
            for page in pages:
                assert self._counts[page] > 0, f"page {page} is free and cannot be shared"
                self._counts[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """One session less holds these pages; a page that nobody holds is free."""
        with self._lock:
            for page in pages:
                assert self._counts[page] > 0, f"page {page} is free already"
                self._counts[page] -= 1
                if self._counts[page] == 0:
                    heapq.heappush(self._free, page)

    def abandon(self, pages: list[int]) -> None:
        """`release`, put off to the next call: safe from a finalizer, which may run in the middle of any other call."""
        self._abandoned.append(pages)

    def _collect(self) -> None:
        while self._abandoned:
            try:
                pages = self._abandoned.popleft()
            except IndexError:  # another thread has it
                return
            self.release(pages)
            pages.clear()
