"""Two hosts of one rank each, started by launch/torchrun.sh with NNODES, NODE_RANK and MASTER_ADDR."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.hosts.conftest import Uninterrupted
from tests.cluster.hosts.namespaces import Host
from tests.cluster.hosts.training import Run, assert_same_losses, end

pytestmark = pytest.mark.cluster
STEPS = 30


def test_two_hosts_train_as_one_does(hosts: list[Host], data: Path, uninterrupted: Uninterrupted, tmp_path: Path) -> None:
    """No host knows a name, not even its own: they meet by addresses alone."""
    run = Run(data, tmp_path, STEPS)
    assert end(run, [run.start(host, 2) for host in hosts]) == [0, 0], run.everything()
    assert run.starts() == [(0, 2)]
    assert_same_losses(run, uninterrupted(STEPS), STEPS)
