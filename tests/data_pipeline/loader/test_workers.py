"""Loader workers and the signals of launchers."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from torch.utils.data import DataLoader, IterableDataset

from data_pipeline.loader.workers import outlive_termination


class _Numbers(IterableDataset[int]):
    def __iter__(self) -> Any:
        return iter(range(100))


def _loader() -> DataLoader[int]:
    return DataLoader(_Numbers(), batch_size=None, num_workers=1, prefetch_factor=2)


def _terminate(iterator: Any) -> None:
    (worker,) = iterator._workers
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(timeout=0.5)


def test_a_worker_goes_on_after_sigterm() -> None:
    loader = _loader()
    outlive_termination(loader)
    iterator = iter(loader)
    assert next(iterator) == 0
    _terminate(iterator)
    assert [next(iterator) for _ in range(99)] == list(range(1, 100))


def test_without_it_the_training_process_fails() -> None:
    iterator = iter(_loader())
    assert next(iterator) == 0
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        _terminate(iterator)
        list(iterator)


def test_what_the_loader_does_at_a_workers_start_is_kept() -> None:
    started: list[int] = []
    loader = _loader()
    loader.worker_init_fn = started.append
    outlive_termination(loader)
    before = signal.getsignal(signal.SIGTERM)
    try:
        loader.worker_init_fn(3)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
    assert started == [3]
