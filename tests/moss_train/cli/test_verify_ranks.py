"""`moss verify ranks` that is told to end takes its ranks with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def ranks_of(session: int) -> int:
    """How many living processes of a session are ranks of the checks."""
    found = 0
    for folder in Path("/proc").iterdir():
        try:
            state, _, _, own = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:4]
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:  # no process, or one that has ended
            continue
        found += own == str(session) and state != "Z" and words[1:3] == [b"-m", b"moss_train.verify.ranks.process"]
    return found


@pytest.mark.ranks
def test_sigterm_ends_the_ranks() -> None:
    command = [sys.executable, "-m", "moss_train.cli.main", "verify", "ranks", "--device", "cpu", "--modules", "torch"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            wait_for(lambda: ranks_of(process.pid) == 2)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 128 + signal.SIGTERM
        finally:
            process.kill()
    wait_for(lambda: ranks_of(process.pid) == 0)
