"""torchrun starts ranks again, with fewer hosts and with more: batches, and so losses, are those of an undisturbed run."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts.conftest import Uninterrupted
from tests.cluster.hosts.namespaces import Host
from tests.cluster.hosts.training import ENDLESS, Run, assert_same_losses, end, tell_to_end

pytestmark = pytest.mark.cluster
OTHER_LAYOUT = 1e-6
"""Relative difference of losses in fp32 where other replicas add up the gradients; 8.4e-8 was seen in 81 steps."""
ELASTIC: dict[str, Any] = {
    "MIN_NODES": "1",
    "MAX_RESTARTS": "2",
    "TORCHRUN_ARGS": "--rdzv-conf last_call_timeout=8,keep_alive_interval=1,keep_alive_max_attempt=3",
}


def _rank_on(host: Host) -> int:
    """Its process."""
    for process in host.processes():
        words = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        if b"LOCAL_RANK=0" in words:
            return process
    raise AssertionError(f"no rank on {host.name}")


def test_a_killed_rank_is_started_again_with_all_others(
    hosts: list[Host], data: Path, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    """torchrun counts one restart on the host of the rank, and none on the other where only its ranks ended in between."""
    run = Run(data, tmp_path, ENDLESS, save_every=4)
    processes = [run.start(host, 2, MAX_RESTARTS="2") for host in hosts]
    run.wait_for(lambda run: run.newest >= 10)
    os.kill(_rank_on(hosts[1]), signal.SIGKILL)
    run.wait_for(lambda run: len(run.starts()) == 2 and run.newest >= 24)
    tell_to_end(processes)
    assert end(run, processes) == [0, 0], run.everything()
    assert [ranks for _, ranks in run.starts()] == [2, 2]
    assert 4 <= run.starts()[1][0] <= 24
    assert_same_losses(run, uninterrupted(24), 24)


def test_a_world_shrinks_and_grows(hosts: list[Host], data: Path, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    """One host loses its power for good: the other goes on alone, and one that comes later makes the world larger again."""
    run = Run(data, tmp_path, ENDLESS, save_every=4)
    first, lost = (run.start(host, 2, **ELASTIC) for host in hosts)
    run.wait_for(lambda run: run.newest >= 10)
    hosts[1].lose_power()
    lost.wait()
    run.wait_for(lambda run: len(run.starts()) == 2)
    alone = run.starts()[1][0]
    run.wait_for(lambda run: run.newest >= alone + 4)

    hosts[1].join()
    later = run.start(hosts[1], 2, **ELASTIC)
    run.wait_for(lambda run: len(run.starts()) == 3)
    grown = run.starts()[2][0]
    run.wait_for(lambda run: run.newest >= grown + 4)
    tell_to_end([first, later])
    assert end(run, [first, later]) == [0, 0], run.everything()
    assert [ranks for _, ranks in run.starts()] == [2, 1, 2]
    assert grown > alone + 4, "the world that grew went on from what the single host saved when it was told"
    assert_same_losses(run, uninterrupted(grown + 4), grown + 4, OTHER_LAYOUT)


@pytest.mark.slow
def test_a_host_that_is_cut_off_for_long_ends(hosts: list[Host], data: Path, tmp_path: Path) -> None:
    """Its torchrun would wait for the first one's store for ever; the first host goes on alone."""
    run = Run(data, tmp_path, ENDLESS, save_every=4)
    first, cut = (run.start(host, 2, **ELASTIC) for host in hosts)
    run.wait_for(lambda run: run.newest >= 6)
    hosts[1].fall_silent()
    assert end(run, [cut], 60) == [3], run.everything()
    assert hosts[1].processes() == []
    assert ["rank 0 on host 10.77.0.1" in line for line in run.errors_of(hosts[1])] == [True, False], run.everything()
    assert "torchrun on host 10.77.0.1:29500" in run.errors_of(hosts[1])[1]
    run.wait_for(lambda run: run.starts()[-1][1] == 1 and run.newest > run.starts()[-1][0] + 4)
    tell_to_end([first])
    assert end(run, [first]) == [0], run.everything()
