"""Two hosts, and what a run on one host makes of the same data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts.namespaces import Host, missing, network
from tests.cluster.hosts.training import Run, end
from tests.moss_train.runs import write_data


@pytest.fixture(scope="session")
def _able() -> None:
    reason = missing()
    if reason is not None:
        pytest.skip(f"no hosts in network namespaces: {reason}")


@pytest.fixture
def hosts(_able: None) -> Iterator[list[Host]]:
    """Two, on one switch, that know no names."""
    with network(2) as found:
        yield found


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of every kind."""
    folder: Path = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


Uninterrupted = Callable[[int], Run]


@pytest.fixture(scope="session")
def uninterrupted(_able: None, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Uninterrupted:
    """`uninterrupted(steps)` -> a run of at least so many steps on two ranks of one host, never ended before."""
    runs: dict[int, Run] = {}

    def train(steps: int) -> Run:
        found = next((run for length, run in runs.items() if length >= steps), None)
        if found is None:
            found = runs[steps] = Run(data, tmp_path_factory.mktemp("uninterrupted"), steps)
            with network(1) as (host,):
                assert end(found, [found.start(host, 1, ranks=2)]) == [0], found.everything()
        return found

    return train
