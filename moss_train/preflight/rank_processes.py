"""Processes for what may hang or die: each rank of a trial is a fork, ended at a deadline whatever it does.

They are forked from a process which was split off while this one had no threads, no connections and no GPU.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

Job = dict[str, Any]
SECONDS_TO_SAY = 2.0
"""For the other ranks, when one has failed, to fail by themselves and say why."""
OF_ANOTHER = "ended since another rank failed"
_POLL_SECONDS = 0.01


class RankProcesses:
    """Make one before anything else is started; it ends with its context.

    Args:
        work: done in every fork: takes a job, returns what JSON can hold.
    """

    def __init__(self, work: Callable[[Job], dict[str, Any]]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if self._pid == 0:
            self._pipe.close()
            code = 1
            try:
                _serve(theirs, work)
                code = 0
            finally:
                os._exit(code)
        theirs.close()

    def __enter__(self) -> RankProcesses:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._pipe.close()
        os.waitpid(self._pid, 0)

    def run(
        self, jobs: Sequence[Job], seconds: float, *, together: bool = False, is_vain: Callable[[], bool] = lambda: False
    ) -> list[dict[str, Any]]:
        """Do all jobs at the same time.

        Args:
            together: the jobs wait for each other: when one has failed the others end soon.
            is_vain: asked now and then; once it says so all end soon.

        Returns:
            of each job what `work` returned, or {"error": a few words} where it failed, died or took longer than `seconds`.
        """
        if not jobs:
            return []
        self._pipe.send((list(jobs), seconds, together))
        asked = False
        while not self._pipe.poll(10 * _POLL_SECONDS):
            if not asked and is_vain():
                self._pipe.send(None)
                asked = True
        answers: list[dict[str, Any]] = self._pipe.recv()
        return answers


def _serve(pipe: Connection, work: Callable[[Job], dict[str, Any]]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the other process, and with its end of the pipe this one
    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        if asked is None:  # to end what has ended by itself
            continue
        jobs, seconds, together = asked
        with tempfile.TemporaryDirectory(prefix="moss_preflight_") as scratch:
            pipe.send(_run(pipe, Path(scratch), work, jobs, seconds, together))


def _run(
    pipe: Connection, scratch: Path, work: Callable[[Job], dict[str, Any]], jobs: Sequence[Job], seconds: float, together: bool
) -> list[dict[str, Any]]:
    end, vain = time.monotonic() + seconds, False
    pids = {_fork(scratch / str(number), work, job): number for number, job in enumerate(jobs)}
    answers: dict[int, dict[str, Any]] = {}
    while pids and time.monotonic() < end:
        for pid in list(pids):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                number = pids.pop(pid)
                answers[number] = _answer(scratch / str(number), os.waitstatus_to_exitcode(status))
        if not vain and (_is_asked_to_end(pipe) or (together and any("error" in answer for answer in answers.values()))):
            end, vain = min(end, time.monotonic() + SECONDS_TO_SAY), True
        time.sleep(_POLL_SECONDS)
    for pid, number in pids.items():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        answers[number] = {"error": OF_ANOTHER if vain else f"not done within {seconds:.0f} s"}
    return [answers[number] for number in range(len(jobs))]


def _is_asked_to_end(pipe: Connection) -> bool:
    """Whether there is word from the process that asked, or it has ended."""
    try:
        return pipe.poll() and pipe.recv() is None
    except EOFError:
        return True


def _fork(path: Path, work: Callable[[Job], dict[str, Any]], job: Job) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        with path.with_suffix(".err").open("w") as messages:
            os.dup2(messages.fileno(), 1)
            os.dup2(messages.fileno(), 2)
        path.write_text(json.dumps(_guarded(work, job)), encoding="utf-8")
        code = 0
    finally:
        os._exit(code)


def _guarded(work: Callable[[Job], dict[str, Any]], job: Job) -> dict[str, Any]:
    try:
        return work(job)
    except Exception as error:
        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]}


def _answer(path: Path, code: int) -> dict[str, Any]:
    if code == 0:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    messages = path.with_suffix(".err").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return {"error": f"{how}{': ' + messages[-1][:200] if messages else ''}"}
