"""Starts real processes with torchrun for tests that need several ranks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

REPOSITORY = Path(__file__).resolve().parent.parent


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

    Args:
        expect: exit code asserted; None asserts that it is not 0.
        env: variables added to the environment.

    Returns:
        stdout and stderr together.
    """
    target = [script_module] if script_module.endswith(".py") else ["-m", script_module]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(nproc),
        *target,
        *map(str, args),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)} | (env or {})
    # A session of its own, so that a hanging rank is ended together with torchrun.
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"{' '.join(command)} ran past {timeout} s\n{output}") from None
    agreed = process.returncode != 0 if expect is None else process.returncode == expect
    assert agreed, f"{' '.join(command)} ended with {process.returncode}\n{output}"
    return output
