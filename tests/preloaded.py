"""Processes that have imported torch, megatron-core and the trainer once and fork a rank from that as often as one is wanted.

A fork is a process of its own with the arguments, environment, folder, session and output that a new one would have. What it
lacks is the start, which takes longer than most of what ranks do, and at its end the clearing of memory: threads are waited for
and what is registered for the end is called. Even and odd rank numbers have a process of their own each, so that neighbours
differ in the order of their sets of strings as they do elsewhere.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import select
import signal
import struct
import subprocess
import sys
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
_REPLY = struct.Struct("qq")
"""The number that a fork is known by, and its process id or, behind that, its exit code."""


class Preloaded:
    """The process that forks, as the tests see it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.preloaded"],
            cwd=REPOSITORY,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for the tests; this process ends when they close its input
        )
        self._replies: defaultdict[int, deque[int]] = defaultdict(deque)

    def fork(self, job: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job).encode() + b"\n")

    def read(self, number: int, seconds: float) -> int | None:
        """The next reply about a fork, None where there is none within so many seconds."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while not self._replies[number]:
            if not select.select([self._process.stdout], [], [], max(deadline - time.monotonic(), 0.0))[0]:
                return None
            reply = self._process.stdout.read(_REPLY.size)
            assert reply, "the process that ranks are forked from has ended"
            about, content = _REPLY.unpack(reply)
            self._replies[about].append(content)
        return self._replies[number].popleft()

    def close(self) -> None:
        """End the process; it has nothing to write."""
        self._process.kill()
        self._process.communicate()


class PreloadedRank:
    """One rank number; one fork at a time.

    Args:
        process: forks it, and other rank numbers.
        number: of the rank.
    """

    def __init__(self, process: Preloaded, number: int) -> None:
        self._process, self._number = process, number
        self.pid: int | None = None
        """Of the newest fork, which leads a session."""
        self._code: int | None = 0

    def start(self, module: str, arguments: Sequence[str], environment: Mapping[str, str], output: Path) -> None:
        """Fork `python -m module arguments...`, which appends to the file `output`; returns before it has begun."""
        assert self._code is not None, "the fork before has not ended"
        job = {"module": module, "arguments": list(arguments), "environment": dict(environment), "output": str(output)}
        self._process.fork(job | {"folder": os.getcwd(), "number": self._number})
        self.pid = self._code = None

    def poll(self) -> int | None:
        """The exit code as of `subprocess.Popen`; None while the fork runs."""
        if self.pid is None:
            self.pid = self._read(0.0)
        if self.pid is not None and self._code is None:
            self._code = self._read(0.0)
        return self._code

    def send_signal(self, number: int) -> None:
        """To the fork alone, where it has not ended."""
        if self.poll() is None:
            os.kill(self._begun(), number)

    def kill(self) -> None:
        """End the fork together with what it started, where it has not ended."""
        if self.poll() is None:
            os.killpg(self._begun(), signal.SIGKILL)
            self._code = self._read(60.0)

    def _begun(self) -> int:
        self.pid = self.pid or self._read(60.0)
        assert self.pid is not None, "the fork has not begun within 60 s"
        return self.pid

    def _read(self, seconds: float) -> int | None:
        return self._process.read(self._number, seconds)


def _import_what_ranks_use() -> None:
    """Nothing on a machine with a GPU, which a fork of a process that asked for it could not use."""
    if Path("/proc/driver/nvidia/version").exists():
        return
    from moss_train import platform

    platform.install()
    import torch._dynamo  # noqa: F401 - else the first optimizer imports it, which takes half as long as torch itself

    import moss_train.trainer  # noqa: F401

    threads = os.listdir("/proc/self/task")
    assert len(threads) == 1, f"a fork would lack {len(threads) - 1} threads"
    gc.freeze()  # so that no fork copies the pages of what all share only to look for cycles


class _Ending:
    """Registered before all else for the end of a fork, so it is called last."""

    code = 0

    def __call__(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(self.code)

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool:
        """Note the exit code and say what Python says of an exception."""
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            self.code = error.code or 0
        elif isinstance(error, SystemExit):
            print(error.code, file=sys.stderr)
            self.code = 1
        elif error is not None:
            traceback.print_exception(error)
            self.code = 1
        return True


def _become(job: dict[str, Any], replies: int, others: Sequence[int]) -> None:
    """In the fork: the session, folder, environment, streams and arguments of the rank."""
    os.setsid()
    os.write(replies, _REPLY.pack(job["number"], os.getpid()))
    for descriptor in (replies, *others):
        os.close(descriptor)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(job["output"], os.O_WRONLY | os.O_APPEND)
    for descriptor, stream in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, stream)
    os.close(nothing)
    os.close(output)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # Python's own generator does it by itself
    sys.argv = [job["module"], *job["arguments"]]


def _forks(replies: int) -> dict[str, Any] | None:
    """Forks as often as the input asks and tells of every end: the job in a fork, None when the input has ended."""
    running: dict[int, tuple[int, int]] = {}
    """By descriptor of the process: its id, and the number that it is known by."""
    waiting = b""
    while True:
        for ready in select.select([0, *running], [], [])[0]:
            if ready:
                pid, number = running.pop(ready)
                os.close(ready)
                os.write(replies, _REPLY.pack(number, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
                continue
            content = os.read(0, 1 << 16)
            if not content:
                return None
            *lines, waiting = (waiting + content).split(b"\n")
            for job in map(json.loads, lines):
                pid = os.fork()
                if pid == 0:
                    _become(job, replies, list(running))
                    return dict(job)
                running[os.pidfd_open(pid)] = pid, job["number"]


def main() -> None:
    """One fork after another until the input ends: its process id, then its exit code, goes to the standard output."""
    replies = os.dup(1)
    os.dup2(2, 1)  # what an import prints is no reply
    atexit.register(ending := _Ending())
    _import_what_ranks_use()
    with ending:
        job = _forks(replies)
        if job is not None:
            runpy.run_module(job["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
