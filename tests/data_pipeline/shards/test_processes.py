"""Worker processes: all tasks are done, and a worker's end of any kind is said."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from data_pipeline.shards.processes import _serve, run_tasks
from model.errors import InputError


def square(task: int, step: Callable[[], None]) -> tuple[int, int]:
    for _ in range(task):
        step()
    time.sleep(0.05)
    return task * task, os.getpid()


def refuse_three(task: int, step: Callable[[], None]) -> int:
    if task == 3:
        raise InputError("task 3 is bad; leave it out")
    return task


def crash_at_three(task: int, step: Callable[[], None]) -> int:
    return 1 // (task - 3)


def killed_at_three(task: int, step: Callable[[], None]) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def touch_then_wait(task: Path, step: Callable[[], None]) -> int:
    task.write_text(str(os.getpid()))
    try:
        time.sleep(0.3)
        step()
        time.sleep(600)
    finally:
        task.unlink()
    return 0


@pytest.mark.parametrize("workers", [1, 2])
def test_every_task_is_done_once(workers: int) -> None:
    steps: list[int] = []
    found = list(run_tasks(square, range(8), workers, steps.append, __name__))
    assert sorted((task, result[0]) for task, result in found) == [(i, i * i) for i in range(8)]
    assert sum(steps) == sum(range(8))
    assert len({result[1] for _, result in found}) == workers


@pytest.mark.parametrize(
    ("work", "error", "message"),
    [
        (refuse_three, InputError, "task 3 is bad; leave it out"),
        (crash_at_three, RuntimeError, "ZeroDivisionError"),
        (killed_at_three, InputError, "a worker process ended with code -9.*try fewer --workers"),
    ],
)
def test_a_workers_end_is_said(work: Callable[[int, Callable[[], None]], int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        list(run_tasks(work, range(6), 2, lambda count: None, __name__))


@pytest.mark.parametrize("work", [refuse_three, crash_at_three])
def test_a_worker_without_a_parent_ends_without_a_word(
    work: Callable[[int, Callable[[], None]], int], capfd: pytest.CaptureFixture[str]
) -> None:
    ours, theirs = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=_orphaned, args=(work, ours, theirs))
    process.start()
    theirs.close()
    ours.close()
    process.join()
    assert process.exitcode == 0 and "Traceback" not in capfd.readouterr().err


def _orphaned(work: Callable[[int, Callable[[], None]], int], ours: Connection, theirs: Connection) -> None:
    ours.send(3)
    ours.close()  # the parent goes while the task is under way
    _serve(work, theirs)


def test_leaving_stops_the_workers_and_lets_them_tidy_up(tmp_path: Path) -> None:
    tasks = [tmp_path / name for name in "ab"]

    def leave(count: int) -> None:
        raise KeyboardInterrupt

    results = run_tasks(touch_then_wait, tasks, 2, leave, __name__)
    with pytest.raises(KeyboardInterrupt):
        next(results)
    assert list(tmp_path.iterdir()) == []
