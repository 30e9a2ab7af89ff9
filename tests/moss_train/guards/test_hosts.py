"""Two hosts of two ranks each, as far as torchrun can tell: one of them is gone at once, as after a power failure."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from moss_train.parallel.ports import hold_port
from tests.ranks import Ranks

pytestmark = pytest.mark.ranks


def _words(number: int, port: int, run_dir: Path) -> list[str]:
    """Of torchrun on one host."""
    words = ["--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "2"]
    words += ["--master-addr", "127.0.0.1", "--master-port", str(port)]
    return words + ["-m", "tests.moss_train.guards.watch_ranks", str(run_dir), "endless"]


@pytest.fixture
def port() -> Iterator[int]:
    with hold_port() as held:
        yield held


@pytest.mark.parametrize(
    ("lost", "how"),
    [(1, signal.SIGKILL), (0, signal.SIGSTOP), pytest.param(0, signal.SIGKILL, marks=pytest.mark.slow)],
    ids=["second", "first_falls_silent", "first"],
)
def test_a_lost_host(tmp_path: Path, lost: int, how: signal.Signals, port: int, starter: Ranks) -> None:
    """With the first host torchrun's store is lost too; where it falls silent, connections stay open and nothing answers."""
    run_dir, left = tmp_path / "run", 1 - lost
    logs = [tmp_path / f"host_{number}" for number in range(2)]
    files = [run_dir / f"pid_{rank}" for rank in range(4)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with ExitStack() as stack:
        hosts = [
            stack.enter_context(starter.fork(number, "torch.distributed.run", _words(number, port, run_dir), environment, log))
            for number, log in enumerate(logs)
        ]
        deadline = time.monotonic() + 90
        while not all(file.is_file() and file.read_text() for file in files):
            assert time.monotonic() < deadline and not any(host.poll() for host in hosts), [log.read_text() for log in logs]
            time.sleep(0.1)
        pids = [int(file.read_text()) for file in files]
        try:
            hosts[lost].send_signal(how)
            for pid in pids[2 * lost : 2 * lost + 2]:
                os.kill(pid, how)
            assert hosts[left].wait(60) != 0
        finally:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
    sentences = [line for line in logs[left].read_text().splitlines() if line.startswith("moss: error: ")]
    assert len(sentences) == 1 and "gave no sign of life for" in sentences[0], logs[left].read_text()
    assert f"ranks {2 * lost}, {2 * lost + 1}" in sentences[0]
