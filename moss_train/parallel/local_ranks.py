"""Starts the ranks of a run on this machine and looks after them. Imports no torch, so that starting costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType

from model.errors import InputError
from moss_train.parallel.ports import hold_port

SECONDS_TO_END = 600.0
"""Grace for ranks that were asked to end before they are killed: a step and the checkpoint of a large model take minutes."""
SECONDS_TO_SAY = 1.0
"""Grace for ranks that end at once by themselves."""
_POLL_SECONDS = 0.1
_TO_END = (signal.SIGTERM, signal.SIGINT)


def start_local_ranks(ranks: int, module: str, arguments: Sequence[str]) -> int:
    """Run `python -m module arguments` as `ranks` processes with torchrun's variables, and wait for all.

    When one rank fails the others are ended too. SIGTERM, SIGUSR1 and SIGINT go on to the ranks, which know that a Ctrl-C
    reaches them through the terminal as well; a second SIGTERM or SIGINT ends them at once.

    Returns:
        0, or the exit code of the rank that failed first; 128 + n where signal n ended it.

    Raises:
        InputError: fewer than one rank.
    """
    if ranks < 1:
        raise InputError(f"--nproc-per-node is {ranks}; it must be at least 1")
    with hold_port() as port:
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        shared |= {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        return _run(ranks, [sys.executable, "-m", module, *arguments], shared)


def _run(ranks: int, command: Sequence[str], shared: Mapping[str, str]) -> int:
    defaults = {"OMP_NUM_THREADS": "1", "CUDA_DEVICE_MAX_CONNECTIONS": "1"}
    processes: list[subprocess.Popen[bytes]] = []
    forwarded: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        forwarded.append(number)
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (*_TO_END, signal.SIGUSR1)}
    try:
        for rank in range(ranks):
            environment = defaults | dict(os.environ) | dict(shared) | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(subprocess.Popen(command, env=environment))
            if asked := [number for number in forwarded if number in _TO_END]:  # before all were there: nothing has begun
                _end(processes, grace=5.0)
                return 128 + asked[-1]
        return _wait(processes, forwarded)
    except BaseException:
        _end(processes, grace=0.0)  # one of them could not be started
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(processes: Sequence[subprocess.Popen[bytes]], forwarded: Sequence[int]) -> int:
    asked = 0.0
    while True:
        codes = [process.poll() for process in processes]
        failed = [code for code in codes if code]
        if failed:
            killed = _tell_killed(codes)
            _end(processes, grace=0.0 if killed else 5.0)
            return failed[0] if failed[0] > 0 else 128 - failed[0]
        if all(code == 0 for code in codes):
            return 0
        ends = [number for number in forwarded if number in _TO_END]
        if ends:
            asked = asked or time.monotonic()
            if time.monotonic() - asked > SECONDS_TO_END or len(ends) > 1:
                _end(processes, grace=SECONDS_TO_SAY if len(ends) > 1 else 0.0)
                return 128 + ends[-1]
        time.sleep(_POLL_SECONDS)


def _tell_killed(codes: Sequence[int | None]) -> bool:
    """Speak for ranks that were ended by a signal, which could say nothing themselves; whether there are any."""
    killed = [(rank, signal.Signals(-code).name) for rank, code in enumerate(codes) if code is not None and code < 0]
    for rank, name in killed[:1]:
        why = "most often the machine's memory was used up; see the system's log" if name == "SIGKILL" else "see above"
        others = f" (and {len(killed) - 1} others)" if len(killed) > 1 else ""
        print(f"moss: rank {rank}{others} was ended by {name}; {why}", file=sys.stderr, flush=True)
    return bool(killed)


def _end(processes: Sequence[subprocess.Popen[bytes]], grace: float) -> None:
    """Ask the remaining ranks to end, then kill them: a rank that waits for a lost one cannot react."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + grace
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":  # RANKS MODULE ARGUMENTS...
    sys.exit(start_local_ranks(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
