"""One Slurm and one dataset for all tests here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.slurm.daemons import Slurm, running, why_not
from tests.moss_train.runs import write_data


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """Nodes n1, n2 and n3."""
    if reason := why_not():
        pytest.skip(reason)
    with running(tmp_path_factory.mktemp("slurm")) as cluster:
        if reason := cluster.why_not_up:  # a machine that forbids what the daemons need
            pytest.skip(f"Slurm does not start here: {reason}")
        yield cluster


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_data(root)
    return root
