"""torchrun as runs are started with it: real ranks that are killed, fail, and are told to end.

Its own process is a fork of one that has imported torch, but for one test; the ranks are processes that it starts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moss_train.parallel.ports import hold_port
from tests.ranks import REPOSITORY, Fork, Ranks

pytestmark = pytest.mark.ranks
AGENT = "moss_train.parallel.agent"
AGENT_2_11 = "tests.moss_train.parallel.agent_2_11"
TORCHRUN = "torch.distributed.run"
RANKS = ("-m", "tests.moss_train.parallel.agent_ranks")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


class Host:
    """One torchrun with its ranks.

    Args:
        output: file that they write to.
    """

    def __init__(self, fork: Fork, output: Path) -> None:
        self._output, self.send_signal = output, fork.send_signal
        self._fork = fork

    def read_until(self, words: str, times: int = 1) -> str:
        """What they wrote until then."""
        deadline = time.monotonic() + 90
        while (text := self._output.read_text()).count(words) < times:
            assert self._fork.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.02)
        return text

    def end(self, seconds: float) -> tuple[int, str]:
        """Exit code and all output of one that ends by itself."""
        try:
            return self._fork.wait(seconds), self._output.read_text()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end within {seconds:g} s\n{self._output.read_text()}") from None


class Hosts:
    """Starts them; each `how` is told to `agent_ranks`."""

    def __init__(self, starter: Ranks, folder: Path) -> None:
        self._starter, self._folder = starter, folder

    @contextmanager
    def start(self, how: str, *options: str, agent: str = AGENT, number: int = 0, **environment: str) -> Iterator[Host]:
        output = self._folder / f"host_{number}"
        words = ["--nproc-per-node", "2", *options, *RANKS, *how.split()]
        with self._starter.fork(number, agent, words, ENVIRONMENT | environment, output) as fork:
            yield Host(fork, output)


@pytest.fixture
def hosts(starter: Ranks, tmp_path: Path) -> Hosts:
    return Hosts(starter, tmp_path)


@pytest.mark.parametrize(
    "agent", [AGENT, pytest.param(AGENT_2_11, marks=pytest.mark.slow), pytest.param(TORCHRUN, marks=pytest.mark.slow)]
)
def test_a_killed_rank_is_started_again_with_the_others(agent: str, hosts: Hosts) -> None:
    """In torchrun's common store the new ranks would find the old ones' addresses."""
    with hosts.start("killed_once", "--standalone", "--max-restarts", "1", agent=agent) as host:
        code, output = host.end(90)
    assert code == 0, output
    assert output.count("met after 0 restarts") == output.count("met after 1 restarts") == 2, output


def test_bad_input_is_not_tried_again_and_the_exit_code_says_so(hosts: Hosts) -> None:
    with hosts.start("2", "--standalone", "--max-restarts", "2") as host:
        code, output = host.end(90)
    assert code == 2, output
    assert "met after 1" not in output
    assert "Traceback" not in output


def test_the_exit_code_is_that_of_the_rank_that_failed_first() -> None:
    """As a process from its start on."""
    words = [sys.executable, "-m", AGENT, "--nproc-per-node", "2", "--standalone", *RANKS, "3"]
    done = subprocess.run(words, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 3, done
    assert done.stdout.count("met after 0") == 2 and "Traceback" not in done.stderr, done


@pytest.mark.parametrize("agent", [AGENT, AGENT_2_11])
@pytest.mark.parametrize(("environment", "code"), [({}, 0), ({"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "1"}, 128 + signal.SIGKILL)])
def test_told_to_end_its_ranks_have_time_to_save_and_it_ends_with_their_code(
    agent: str, environment: dict[str, str], code: int, hosts: Hosts
) -> None:
    seconds = 40 if code else 1  # more than what the variable gives them; more than what torch 2.11 does
    with hosts.start(f"wait {seconds}", "--standalone", agent=agent, **environment) as host:
        host.read_until("met after", 2)
        host.send_signal(signal.SIGTERM)
        ended, output = host.end(30)
    assert ended == code, output
    assert output.count("saved") == (0 if code else 2), output
    assert "Traceback" not in output


@pytest.mark.parametrize("agent", [pytest.param(AGENT, marks=pytest.mark.slow), AGENT_2_11])
def test_ranks_have_time_to_save_when_a_host_joins(agent: str, hosts: Hosts) -> None:
    """Also they are started again, in a world of their own."""
    with hold_port() as port:
        own = ["--nproc-per-node", "1", "--nnodes", "1:2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}"]
        own += ["--rdzv-id", "joined", "--rdzv-conf"]
        with hosts.start("meet 1", *own, "is_host=1,last_call_timeout=1", agent=agent) as first:
            first.read_until("of 1 met after")
            with hosts.start("meet 1", *own, "is_host=0,last_call_timeout=1", agent=agent, number=1) as second:
                assert "saved" in first.read_until("of 2 met after")
                second.read_until("of 2 met after")
                for host in (first, second):
                    host.send_signal(signal.SIGTERM)
                ends = [host.end(60) for host in (first, second)]
    assert [code for code, _ in ends] == [0, 0], ends
