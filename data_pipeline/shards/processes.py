"""Tasks spread over worker processes: progress by task, a killed worker is noticed, an interrupt ends all at once."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

from model.errors import InputError

T = TypeVar("T")
R = TypeVar("R")
Work = Callable[[T, Callable[[], None]], R]
"""Makes the result of a task; calls its second argument after each step of it."""

_REPORT_SECONDS = 0.2
_GRACE_SECONDS = 5.0


def run_tasks(
    work: Work[T, R], tasks: Iterable[T], workers: int, on_steps: Callable[[int], None], preload: str
) -> Generator[tuple[T, R], None, None]:
    """Yield (task, result) in the order in which they end.

    Args:
        work: must be importable by name. In this process if `workers` is 1.
        tasks: taken one by one, when a worker is free.
        on_steps: called with the number of steps that were done since the last call.
        preload: module that the workers need.

    Raises:
        InputError: a task raised one, or a worker was killed. The others are stopped.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; it must be at least 1")
    if workers == 1:
        for task in tasks:
            yield task, work(task, lambda: on_steps(1))
        return
    # a server forks the workers: one import for all of them, and none inherits this process's threads
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    team = _Team(context, work, workers)
    try:
        yield from team.run(iter(tasks), on_steps)
    finally:
        team.stop()


class _Team:
    def __init__(self, context: Any, work: Work[Any, Any], workers: int) -> None:
        self._members: dict[Connection, Any] = {}
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(work, theirs), daemon=True)
            process.start()
            theirs.close()  # so that a worker's end is the end of the pipe
            self._members[ours] = process

    def run(self, tasks: Iterator[Any], on_steps: Callable[[int], None]) -> Iterator[tuple[Any, Any]]:
        busy: dict[Connection, Any] = {}
        for member in self._members:
            self._give(member, tasks, busy)
        while busy:
            ready: list[Any] = wait(list(busy))
            for member in ready:
                try:
                    kind, value = member.recv()
                except (EOFError, ConnectionResetError):
                    raise InputError(self._death(member)) from None
                if kind == "steps":
                    on_steps(value)
                elif kind == "result":
                    yield busy.pop(member), value
                    self._give(member, tasks, busy)
                elif kind == "input":
                    raise InputError(value)
                else:
                    raise RuntimeError(f"a worker failed:\n{value}")

    def stop(self) -> None:
        """End idle workers by closing their pipes, and the others by a signal."""
        for pipe, process in self._members.items():
            process.terminate()
            pipe.close()
        for process in self._members.values():
            process.join(_GRACE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()

    def _give(self, member: Connection, tasks: Iterator[Any], busy: dict[Connection, Any]) -> None:
        for task in tasks:
            try:
                member.send(task)
            except BrokenPipeError:
                raise InputError(self._death(member)) from None
            busy[member] = task
            return

    def _death(self, member: Connection) -> str:
        process = self._members[member]
        process.join(_GRACE_SECONDS)
        return f"a worker process ended with code {process.exitcode}, as for want of memory; try fewer --workers"


def _serve(work: Work[Any, Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and decides
    signal.signal(signal.SIGTERM, lambda *_: _leave())
    steps = _Steps(pipe)
    try:
        while True:
            task = pipe.recv()
            result = work(task, steps.step)
            steps.send()
            pipe.send(("result", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has gone
    except InputError as error:
        _tell(pipe, "input", str(error))
    except Exception:
        _tell(pipe, "crash", traceback.format_exc())


def _tell(pipe: Connection, kind: str, text: str) -> None:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the parent has gone
        pipe.send((kind, text))


def _leave() -> None:
    raise SystemExit(0)  # an exception, so that a half-written file is removed


class _Steps:
    """Reports steps a few times a second, however many there are."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._count = 0
        self._sent = time.monotonic()

    def step(self) -> None:
        self._count += 1
        if time.monotonic() - self._sent >= _REPORT_SECONDS:
            self.send()

    def send(self) -> None:
        self._pipe.send(("steps", self._count))
        self._count, self._sent = 0, time.monotonic()
