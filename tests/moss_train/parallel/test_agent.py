"""torchrun as runs are started with it: real ranks that are killed, fail, and are told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from moss_train.parallel.ports import hold_port
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


def _read_until(process: subprocess.Popen[str], words: str, times: int = 1) -> str:
    """What it writes until then."""
    assert process.stdout is not None
    text = ""
    while text.count(words) < times:
        line = process.stdout.readline()
        assert line, text
        text += line
    return text


@pytest.mark.parametrize("agent", [AGENT, AGENT_2_11, pytest.param("torch.distributed.run", marks=pytest.mark.slow)])
def test_a_killed_rank_is_started_again_with_the_others(agent: str) -> None:
    """In torchrun's common store the new ranks would find the old ones' addresses."""
    process = _start("killed_once", "--standalone", "--max-restarts", "1", agent=agent)
    try:
        output, _ = process.communicate(timeout=90)
    finally:
        process.kill()
    assert process.returncode == 0, output
    assert output.count("met after 0 restarts") == output.count("met after 1 restarts") == 2, output


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
    try:
        _read_until(process, "met after", 2)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == code, output
    assert output.count("saved") == (0 if code else 2), output
    assert "Traceback" not in output


@pytest.mark.parametrize("agent", [pytest.param(AGENT, marks=pytest.mark.slow), AGENT_2_11])
def test_ranks_have_time_to_save_when_a_host_joins(agent: str) -> None:
    with hold_port() as port:
        own = ["--nproc-per-node", "1", "--nnodes", "1:2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
        own += ["--rdzv-id", "joined", "--rdzv-conf"]
        hosts = [_start("wait 3", *own, "is_host=1,last_call_timeout=1", agent=agent)]
        try:
            _read_until(hosts[0], "of 1 met after")
            hosts.append(_start("wait 3", *own, "is_host=0,last_call_timeout=1", agent=agent))
            assert "saved" in _read_until(hosts[0], "of 2 met after")
            _read_until(hosts[1], "of 2 met after")
            for host in hosts:
                host.send_signal(signal.SIGTERM)
            outputs = [host.communicate(timeout=60)[0] for host in hosts]
        finally:
            for host in hosts:
                host.kill()
    assert [host.returncode for host in hosts] == [0, 0], outputs
