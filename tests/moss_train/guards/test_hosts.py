"""Two hosts of two ranks each, as far as torchrun can tell: one of them is gone at once, as after a power failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moss_train.parallel.ports import hold_port
from tests.ranks import REPOSITORY

pytestmark = pytest.mark.ranks


def _host(number: int, port: int, run_dir: Path, errors: Path) -> subprocess.Popen[bytes]:
    """torchrun on one host."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes",
        "2",
        "--node-rank",
        str(number),
        "--nproc-per-node",
        "2",
    ]
    command += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    command += ["-m", "tests.moss_train.guards.watch_ranks", str(run_dir), "endless"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL, stderr=errors.open("wb"), start_new_session=True
    )


@pytest.fixture
def port() -> Iterator[int]:
    with hold_port() as held:
        yield held


@pytest.mark.parametrize(
    ("lost", "how"),
    [(1, signal.SIGKILL), (0, signal.SIGSTOP), pytest.param(0, signal.SIGKILL, marks=pytest.mark.slow)],
    ids=["second", "first_falls_silent", "first"],
)
def test_a_lost_host(tmp_path: Path, lost: int, how: signal.Signals, port: int) -> None:
    """With the first host torchrun's store is lost too; where it falls silent, connections stay open and nothing answers."""
    run_dir = tmp_path / "run"
    logs = [tmp_path / f"host_{number}" for number in range(2)]
    hosts = [_host(number, port, run_dir, logs[number]) for number in range(2)]
    pids = [run_dir / f"pid_{rank}" for rank in range(4)]
    deadline = time.monotonic() + 90
    while not all(pid.is_file() and pid.read_text() for pid in pids):
        assert time.monotonic() < deadline and not any(host.poll() for host in hosts), [log.read_text() for log in logs]
        time.sleep(0.1)
    time.sleep(2.0)
    left = 1 - lost
    begin = time.monotonic()
    for pid in (hosts[lost].pid, *(int(pids[rank].read_text()) for rank in (2 * lost, 2 * lost + 1))):
        os.kill(pid, how)
    try:
        assert hosts[left].wait(60) != 0
    finally:
        for pid in (*(host.pid for host in hosts), *(int(path.read_text()) for path in pids)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        hosts[lost].wait()
    assert time.monotonic() - begin < 60
    sentences = [line for line in logs[left].read_text().splitlines() if line.startswith("moss: error: ")]
    assert len(sentences) == 1 and "gave no sign of life for" in sentences[0], logs[left].read_text()
    assert f"ranks {2 * lost}, {2 * lost + 1}" in sentences[0]
