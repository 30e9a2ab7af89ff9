"""The tables of pages of many sessions, on the device, brought up to date only where they changed."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from inference.cache.session_cache import SessionCache
from inference.graphs.upload import Upload

SCRATCH_SESSION = 0
"""Padding rows belong to it; its tables hold the scratch page alone."""


@dataclass
class _Place:
    cache: weakref.ref[SessionCache]
    version: int
    used: int
    """When it was last in a step."""


class SessionTables:
    """One row for each session that has stepped of late.

    Args:
        sessions: rows, the scratch session not counted; the session that has not stepped for longest makes way.
        widths: pages that the self and the cross tables have room for at first.
        device: where they are.
    """

    def __init__(self, sessions: int, widths: tuple[int, int], device: torch.device, upload: Upload) -> None:
        self.sessions, self._device, self._upload = sessions, device, upload
        self.generation = 0
        """Changes when the tables have moved in memory."""
        self._clock = 0
        self._places: list[_Place | None] = [None] * (sessions + 1)
        self._row_of: weakref.WeakKeyDictionary[SessionCache, int] = weakref.WeakKeyDictionary()
        self._make(widths)

    def place(self, cache: SessionCache) -> object:
        """Equal (`is`) as long as a session keeps its row; None where it has none."""
        return self._places[self._row_of[cache]] if cache in self._row_of else None

    def update(self, caches: Sequence[SessionCache]) -> list[int]:
        """Rows of the sessions of one step, their tables as they are now.

        Args:
            caches: at most `sessions`, each once; pages reserved.
        """
        self._clock += 1
        widest = (max(len(cache.self_table) for cache in caches), max(len(cache.cross_table) for cache in caches))
        widths = (self.self_tables.shape[1], self.cross_tables.shape[1])
        if any(need > width for need, width in zip(widest, widths, strict=True)):
            first, second = (max(width, 1 << (need - 1).bit_length()) for need, width in zip(widest, widths, strict=True))
            self._make((first, second))
        for cache in caches:  # those that have a row keep it
            if (row := self._row_of.get(cache)) is not None and (place := self._places[row]) is not None:
                place.used = self._clock
        rows = [self._row_of[cache] if cache in self._row_of else self._give_row(cache) for cache in caches]
        for row, cache in zip(rows, caches, strict=True):
            place = self._places[row]
            assert place is not None
            if place.version != cache.version:
                for tables, pages in ((self.self_tables, cache.self_table), (self.cross_tables, cache.cross_table)):
                    self._upload.copy(tables[row], np.array(pages, dtype=np.int32))
                place.version = cache.version
        return rows

    def _give_row(self, cache: SessionCache) -> int:
        row = min(range(1, self.sessions + 1), key=self._last_use)
        place = self._places[row]
        if place is not None and (old := place.cache()) is not None:
            self._row_of.pop(old, None)
        self._places[row] = _Place(weakref.ref(cache), -1, self._clock)
        self._row_of[cache] = row
        return row

    def _last_use(self, row: int) -> int:
        """When a row's session was in a step; -1 for a row that is free."""
        place = self._places[row]
        return -1 if place is None or place.cache() is None else place.used

    def _make(self, widths: tuple[int, int]) -> None:
        # int32 [sessions + 1, pages]; what no table fills is the scratch page.
        self.self_tables, self.cross_tables = (
            torch.zeros(self.sessions + 1, width, dtype=torch.int32, device=self._device) for width in widths
        )
        self.generation += 1
        for place in self._places:
            if place is not None:
                place.version = -1
