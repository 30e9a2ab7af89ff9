"""Starts real processes with torchrun's variables for tests that need several ranks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

REPOSITORY = Path(__file__).resolve().parent.parent
SECONDS_FOR_THE_OTHERS = 20.0
"""How long the ranks that are left may take to end by themselves when one has failed."""


class RunRanks(Protocol):
    """Type of the fixture `run_ranks`."""

    def __call__(
        self,
        script_module: str,
        nproc: int,
        *args: object,
        timeout: float = 120,
        expect: int | None = 0,
        env: dict[str, str] | None = None,
    ) -> str: ...


def run_ranks(
    script_module: str,
    nproc: int,
    *args: object,
    timeout: float = 120,
    expect: int | None = 0,
    env: dict[str, str] | None = None,
) -> str:
    """Run a module (`tests.moss_train.lora_ranks`) or a file (`.../x.py`) on `nproc` ranks of one thread each.

    Not by torchrun, whose own process takes longer to start than two ranks.

    Args:
        expect: exit code asserted, that of the rank that failed first; None asserts that it is not 0.
        env: variables added to the environment.

    Returns:
        stdout and stderr together.
    """
    target = [script_module] if script_module.endswith(".py") else ["-m", script_module]
    command = [sys.executable, *target, *map(str, args)]
    shared = {"WORLD_SIZE": str(nproc), "LOCAL_WORLD_SIZE": str(nproc)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)} | shared | (env or {})
    # A file, not a pipe: nobody has to read while the ranks run.
    with tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace") as messages:
        processes = [
            # Sessions of their own, so that a hanging rank is ended together with what it started.
            subprocess.Popen(
                command,
                cwd=REPOSITORY,
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=messages,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for rank in range(nproc)
        ]
        try:
            code = _wait(processes, timeout)
        finally:
            for process in processes:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        messages.seek(0)
        output = messages.read()
    what = f"{nproc} ranks of {' '.join(command)}"
    assert code is not None, f"{what} ran past {timeout} s\n{output}"
    assert code != 0 if expect is None else code == expect, f"{what} ended with {code}\n{output}"
    return output


def _wait(processes: Sequence[subprocess.Popen[bytes]], timeout: float) -> int | None:
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


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
