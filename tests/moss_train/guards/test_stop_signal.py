"""Two hosts of one rank each, one of which is gone; the scheduler ends the other as soon as it sees that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moss_train.guards.cause import EXIT_LOST_RANK
from moss_train.guards.ending import read_ending
from moss_train.parallel.ports import hold_port
from tests.moss_train.runs import run_config, save_run_config, write_data
from tests.ranks import REPOSITORY

pytestmark = pytest.mark.ranks


@pytest.fixture
def port() -> Iterator[int]:
    with hold_port() as held:
        yield held


def _host(rank: int, port: int, config: Path, errors: Path) -> subprocess.Popen[bytes]:
    variables = {"RANK": rank, "GROUP_RANK": rank, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "OMP_NUM_THREADS": 1}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return subprocess.Popen(
        [sys.executable, "-m", "moss_train.cli.main", "train", "--config", str(config)],
        cwd=REPOSITORY,
        env=os.environ | {name: str(value) for name, value in variables.items()},
        stdout=subprocess.DEVNULL,
        stderr=errors.open("wb"),
    )


def _catches(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    if process.poll() is not None:
        return False
    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    raise AssertionError(f"/proc/{process.pid}/status has no SigCgt")


def test_a_rank_that_is_told_to_end_behind_a_failure_still_says_which_was_lost(tmp_path: Path, port: int) -> None:
    """`srun --kill-on-bad-exit` ended it while it looked for the lost one, and the job did not know which node to leave out."""
    write_data(tmp_path / "data")
    changes = {"data__worker_processes": 0, "train__eval_batches": 0, "guard__lost_rank_seconds": 3.0}
    config = run_config(tmp_path / "data", tmp_path / "run", "warm_text", 100_000, **changes)
    path = save_run_config(config, tmp_path / "run.yaml")
    logs = [tmp_path / f"host_{rank}" for rank in range(2)]
    hosts = [_host(rank, port, path, logs[rank]) for rank in range(2)]
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "run" / "metrics.jsonl").is_file():
            assert time.monotonic() < deadline and not any(host.poll() for host in hosts), [log.read_text() for log in logs]
            time.sleep(0.1)
        assert _catches(hosts[0], signal.SIGTERM)
        hosts[1].kill()
        while _catches(hosts[0], signal.SIGTERM):  # until its step has failed
            assert time.monotonic() < deadline, logs[0].read_text()
            time.sleep(0.01)
        hosts[0].send_signal(signal.SIGTERM)
        hosts[0].send_signal(signal.SIGUSR1)
        assert hosts[0].wait(60) == EXIT_LOST_RANK, logs[0].read_text()
    finally:
        for host in hosts:
            host.kill()
            host.wait()
    ending = read_ending(tmp_path / "run")
    assert ending is not None and ending.ranks == (1,) and ending.code == EXIT_LOST_RANK
    assert "rank 1 on host" in ending.sentence and "gave no sign of life" in ending.sentence
