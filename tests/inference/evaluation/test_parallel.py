"""Workers that cannot begin, or die, end an evaluation instead of making it wait for ever."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator

import pytest
import torch

from inference.evaluation import parallel
from inference.evaluation.running.runner import ScenarioRunner
from model.errors import InputError


def without_memory() -> ScenarioRunner:
    """As a model that the device has no room for."""
    raise torch.OutOfMemoryError("no room")


@pytest.fixture
def _as_a_worker() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    parallel._failures.clear()
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_as_a_worker")
def test_a_worker_that_cannot_begin_says_why() -> None:
    parallel._start_worker(without_memory)
    assert parallel._run_group([]) == "no worker could begin: OutOfMemoryError: no room"


def test_a_worker_that_dies_ends_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forked ones, which begin at once; the pool of an evaluation spawns, and looks after its workers the same."""
    monkeypatch.setattr(parallel, "_PATIENCE", 0.05)
    others = multiprocessing.active_children()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        processes = [child for child in multiprocessing.active_children() if child not in others]
        results = pool.imap(os._exit, [9])
        with pytest.raises(InputError, match="a worker process died"):
            parallel._next_result(results, processes)  # type: ignore[arg-type]  # there is no result
