"""A host is cut off while all train: both sides end by themselves and say why, and the same command goes on exactly."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.cluster.hosts.conftest import Uninterrupted
from tests.cluster.hosts.namespaces import Host
from tests.cluster.hosts.training import ENDLESS, LOST_SECONDS, Run, assert_same_losses, end, tell_to_end

pytestmark = pytest.mark.cluster
COMPARED = 30
SECONDS_TO_END = 60.0


@pytest.mark.parametrize(
    ("cut", "silent"),
    [(1, True), pytest.param(0, True, marks=pytest.mark.slow), pytest.param(1, False, marks=pytest.mark.slow)],
    ids=["silent", "the_first_silent", "unplugged"],
)
def test_both_sides_end_and_the_run_goes_on(
    hosts: list[Host], data: Path, uninterrupted: Uninterrupted, tmp_path: Path, cut: int, silent: bool
) -> None:
    """With the first host the others lose torchrun's store as well."""
    run = Run(data, tmp_path, ENDLESS, save_every=4)
    processes = [run.start(host, 2) for host in hosts]
    run.wait_for(lambda run: run.newest >= 10)
    begin = time.monotonic()
    if silent:
        hosts[cut].fall_silent()
    else:
        hosts[cut].unplug()
    assert end(run, processes, SECONDS_TO_END) == [3, 3], run.everything()
    assert time.monotonic() - begin > LOST_SECONDS - 2
    assert [host.processes() for host in hosts] == [[], []]
    for host, other in ((hosts[0], hosts[1]), (hosts[1], hosts[0])):
        assert len(run.errors_of(host)) == 1, run.everything()
        (sentence,) = run.errors_of(host)
        assert f"rank {other.number}" in sentence and f"rank {host.number}" not in sentence
        assert f"on host {other.name} " in sentence or f"on host {other.address}," in sentence
        assert "gave no sign of life for 6 s" in sentence

    hosts[cut].join()
    processes = [run.start(host, 2) for host in hosts]
    run.wait_for(lambda run: len(run.starts()) == 2 and run.newest >= COMPARED)
    tell_to_end(processes)
    assert end(run, processes) == [0, 0], run.everything()
    assert run.starts()[1][0] >= 8, "the checkpoint of step 8 was there"
    assert_same_losses(run, uninterrupted(COMPARED), COMPARED)
