"""How many pages there are at first, and what happens when memory has no room for more."""

from __future__ import annotations

import sys
import threading

import pytest
import torch

from inference.benchmark.models import TINY
from inference.cache.allocator import OutOfPagesError
from inference.cache.policies.policy import PageBounds
from inference.cache.session_cache import SessionCache
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


def test_threads_that_make_a_pool_grow_at_the_same_time_lose_nothing() -> None:
    def work(store: KVStore, number: int, go: threading.Barrier, found: list[tuple[SessionCache, int]]) -> None:
        go.wait(20)
        for step in range(6):
            cache = store.new_cache()
            cache.reserve(8, 1)
            content = store.cross_pool.load_page(cache.cross_table[0])
            content.vectors.fill_(10 * number + step + 1)
            store.cross_pool.store_page(cache.cross_table[0], content)
            found.append((cache, 10 * number + step + 1))

    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(8):
            store = KVStore(TINY, torch.device("cpu"), torch.float32, positions=64, frames=1, rows_per_page=8)
            go, found = threading.Barrier(4), list[tuple[SessionCache, int]]()
            threads = [threading.Thread(target=work, args=(store, number, go, found)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert len({cache.cross_table[0] for cache, _ in found}) == len(found) == 24
            for cache, value in found:
                assert bool((store.cross_pool.load_page(cache.cross_table[0]).vectors == value).all())
    finally:
        sys.setswitchinterval(usual)
