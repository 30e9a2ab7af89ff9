"""How many pages there are at first, and what happens when memory has no room for more."""

from __future__ import annotations

import pytest
import torch

from inference.benchmark.models import TINY
from inference.cache.allocator import OutOfPagesError
from inference.cache.policies.policy import PageBounds
from inference.cache.store import KVStore, fitting


def test_pages_are_as_many_as_needed_or_as_fit() -> None:
    bounds = PageBounds(row_pages=512, frame_pages=3600)
    assert fitting(bounds, [100, 10], 10**9) == (512, 3600)
    rows, frames = fitting(bounds, [100, 10], (512 * 100 + 3600 * 10) // 4)
    assert (rows, frames) == (128, 900)
    assert fitting(bounds, [100, 10], 0) == (1, 1)


def _filled(pages: int) -> KVStore:
    store = KVStore(TINY, torch.device("cpu"), torch.float32, positions=64, frames=pages)
    store.cross_pool.take(pages)
    store.cross_pool.keys(0).fill_(3.0)
    return store


def test_a_pool_that_cannot_double_grows_by_less(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = _filled(31).cross_pool
    zeros = torch.zeros

    def scarce(*size: int, **options: object) -> torch.Tensor:
        if size[2:3] >= (64,):
            raise torch.OutOfMemoryError("no room")
        return zeros(*size, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "zeros", scarce)
    taken = pool.take(2)
    assert len(set(taken)) == 2 and min(taken) >= 32 and pool.pages == 38
    assert bool((pool.keys(0)[:32] == 3.0).all())


def test_a_pool_that_cannot_grow_says_so_and_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    store = _filled(7)
    pool, before = store.cross_pool, store.num_bytes

    def full(*size: int, **options: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch, "zeros", full)
    cache = store.new_cache()
    with pytest.raises(OutOfPagesError, match="memory is full"):
        cache.reserve(1, 1)
    assert (pool.pages, pool.generation, store.num_bytes) == (8, 0, before)
    assert cache.self_table == [] and store.self_pool.allocator.used_pages == 0
    assert bool((pool.keys(0) == 3.0).all())
