"""Starts processes with torchrun's variables for tests that need several ranks."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import pytest
import torch

from moss_train.parallel import local_ranks
from moss_train.parallel.ports import hold_port
from moss_train.parallel.spawn import _PROGRESS
from tests.preloaded import REPOSITORY, Preloaded, PreloadedRank

__all__ = ["REPOSITORY", "Answer", "Fork", "Launch", "Ranks", "RunRanks"]

SECONDS_FOR_THE_OTHERS = 20.0
"""How long the ranks that are left may take to end by themselves when one has failed."""


class RunRanks(Protocol):
    """Type of the fixture `run_ranks`, see `Ranks.run`."""

    def __call__(
        self,
        module: str,
        nproc: int,
        *args: object,
        timeout: float = 120,
        expect: int | None = 0,
        env: dict[str, str] | None = None,
    ) -> str: ...


class Answer(Protocol):
    """Type of `moss_train.parallel.spawn.run_on_ranks` and of `Ranks.answer`."""

    def __call__(
        self,
        module: str,
        ranks: int,
        arguments: Sequence[object],
        *,
        device: str = "auto",
        on_progress: Callable[[Any], None] | None = None,
    ) -> Any: ...


class Launch(Protocol):
    """Type of the fixture `launch`, see `Ranks.launch`."""

    def __call__(self, ranks: int, start: Callable[[], int]) -> tuple[int, str]: ...


class Ranks:
    """Starts ranks one job after another, each a fork of a process that has imported what ranks use."""

    def __init__(self) -> None:
        self._sources: list[Preloaded] = []
        self._processes: list[PreloadedRank] = []

    def run(
        self,
        module: str,
        nproc: int,
        *args: object,
        timeout: float = 120,
        expect: int | None = 0,
        env: dict[str, str] | None = None,
    ) -> str:
        """Run a module, as `tests.moss_train.lora_ranks`, on `nproc` ranks of one thread each.

        Args:
            timeout: seconds.
            expect: exit code asserted, that of the rank that failed first; None asserts that it is not 0.
            env: variables added to the environment.

        Returns:
            stdout and stderr together.
        """
        processes, arguments = self._preloaded(nproc), [str(arg) for arg in args]
        shared = {"WORLD_SIZE": str(nproc), "LOCAL_WORLD_SIZE": str(nproc), "MASTER_ADDR": "127.0.0.1"}
        # A file, not a pipe: nobody has to read while the ranks run.
        with hold_port() as port, tempfile.NamedTemporaryFile(mode="r", encoding="utf-8", errors="replace") as messages:
            shared |= {"MASTER_PORT": str(port)}
            environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)} | shared | (env or {})
            try:
                for rank, process in enumerate(processes):
                    own = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                    process.start(module, arguments, environment | own, Path(messages.name))
                code = _wait(processes, timeout)
            finally:
                for process in processes:
                    process.kill()
            output = messages.read()
        what = f"{nproc} ranks of {module} {' '.join(arguments)}"
        assert code is not None, f"{what} ran past {timeout} s\n{output}"
        assert code != 0 if expect is None else code == expect, f"{what} ended with {code}\n{output}"
        return output

    def answer(
        self,
        module: str,
        ranks: int,
        arguments: Sequence[object],
        *,
        device: str = "auto",
        on_progress: Callable[[Any], None] | None = None,
    ) -> Any:
        """In the place of `run_on_ranks`, where a test is not of the start itself: its ranks are forks, which start at once.

        Progress is told when the ranks have ended; an error of theirs is an AssertionError with their output.
        """
        with tempfile.TemporaryDirectory() as scratch:
            result = Path(scratch) / "answer.json"
            hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" or torch.cuda.device_count() < ranks else {}
            output = self.run(module, ranks, result, *arguments, timeout=300, env=hidden)
            content = json.loads(result.read_text(encoding="utf-8"))
        for line in output.splitlines():
            if on_progress is not None and line.startswith(_PROGRESS):
                on_progress(json.loads(line.removeprefix(_PROGRESS)))
        assert "error" not in content, content
        return content["answer"]

    def launch(self, ranks: int, start: Callable[[], int]) -> tuple[int, str]:
        """What calls `start_local_ranks`, as it is but for forks in the place of the processes that it starts.

        Args:
            ranks: how many it starts at most.
            start: the call, as `lambda: main(["train", ...])`.

        Returns:
            what the call returns, and what the ranks wrote to both their streams.
        """
        processes = self._preloaded(ranks)
        left = iter(processes)
        with tempfile.NamedTemporaryFile(mode="r", encoding="utf-8", errors="replace") as messages:

            def fork(command: Sequence[str], env: dict[str, str]) -> Fork:
                python, option, module, *arguments = command
                assert (python, option) == (sys.executable, "-m")
                process = next(left)
                process.start(module, arguments, env | {"PYTHONPATH": str(REPOSITORY)}, Path(messages.name))
                return Fork(process)

            replaced = SimpleNamespace(Popen=fork, TimeoutExpired=subprocess.TimeoutExpired)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(local_ranks, "subprocess", replaced)
                try:
                    code = start()
                finally:
                    for process in processes:
                        process.kill()
            return code, messages.read()

    @contextmanager
    def fork(
        self, number: int, module: str, arguments: Sequence[str], environment: dict[str, str], output: Path
    ) -> Iterator[Fork]:
        """`python -m module arguments...` by itself, on its own or beside those of other numbers; killed behind the block.

        Args:
            output: file of both its streams, made where it is not there.
        """
        process = self._preloaded(number + 1)[number]
        output.touch()
        process.start(module, arguments, environment | {"PYTHONPATH": str(REPOSITORY)}, output)
        try:
            yield Fork(process)
        finally:
            process.kill()

    @property
    def pids(self) -> list[int]:
        """Of the newest forks, each of which led a session."""
        return [process.pid for process in self._processes if process.pid is not None]

    def _preloaded(self, ranks: int) -> list[PreloadedRank]:
        while len(self._sources) < min(ranks, 2):
            self._sources.append(Preloaded())
        while len(self._processes) < ranks:
            number = len(self._processes)
            self._processes.append(PreloadedRank(self._sources[number % 2], number))
        return self._processes[:ranks]

    def close(self) -> None:
        """End the processes that ranks are forked from."""
        for source in self._sources:
            source.close()


class Fork:
    """What is asked of a `subprocess.Popen`, of a fork."""

    def __init__(self, process: PreloadedRank) -> None:
        self._process = process
        self.poll, self.send_signal = process.poll, process.send_signal

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = math.inf) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(0.02)
        return code


def _wait(processes: Sequence[PreloadedRank], timeout: float) -> int | None:
    """0, the code of the rank that failed first, or None where they did not end in time."""
    deadline, failed = time.monotonic() + timeout, 0
    while time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        if not failed and any(codes):
            failed = next(code for code in codes if code)
            deadline = min(deadline, time.monotonic() + SECONDS_FOR_THE_OTHERS)
        if all(code is not None for code in codes):
            return failed
        time.sleep(0.02)
    return failed or None
