"""torchrun as runs are started with it: real ranks that are killed, fail, and are told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.ranks import REPOSITORY

pytestmark = pytest.mark.ranks
AGENT = "moss_train.parallel.agent"
AGENT_2_11 = "tests.moss_train.parallel.agent_2_11"


def _start(how: str, *options: str, agent: str = AGENT, **environment: str) -> subprocess.Popen[str]:
    words = ["--nproc-per-node", "2", *options, "-m", "tests.moss_train.parallel.agent_ranks", *how.split()]
    return subprocess.Popen(
        [sys.executable, "-m", agent, *words],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("agent", [AGENT, AGENT_2_11, pytest.param("torch.distributed.run", marks=pytest.mark.slow)])
def test_a_killed_rank_is_started_again_with_the_others(agent: str) -> None:
    """In torchrun's common store the new ranks would find the old ones' addresses."""
    process = _start("killed_once 2", "--standalone", "--max-restarts", "1", agent=agent)
    try:
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert output.count("met after 0 restarts") == output.count("met after 1 restarts") == 2, output
    assert "rank 0 saved" in output, output


@pytest.mark.parametrize(("code", "restarts"), [(3, 0), (2, 2)])
def test_the_exit_code_is_that_of_the_rank_that_failed_first(code: int, restarts: int) -> None:
    """Bad input stays bad: it is not tried again."""
    process = _start(str(code), "--standalone", "--max-restarts", str(restarts))
    try:
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == code, output
    assert "met after 1" not in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("agent", "environment", "code"),
    [
        (AGENT, {}, 0),
        (AGENT_2_11, {}, 0),
        (AGENT, {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1"}, 128 + signal.SIGKILL),
        (AGENT_2_11, {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1"}, 128 + signal.SIGKILL),
    ],
)
def test_told_to_end_its_ranks_have_time_to_save_and_it_ends_with_their_code(
    agent: str, environment: dict[str, str], code: int
) -> None:
    process = _start("wait 3", "--standalone", agent=agent, **environment)
    assert process.stdout is not None
    try:
        met = 0
        while met < 2:
            line = process.stdout.readline()
            assert line, process.wait()
            met += line.count("met after")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code, output
    assert output.count("saved") == (0 if code else 2), output
    assert "Traceback" not in output
