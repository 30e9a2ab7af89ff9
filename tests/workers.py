"""The processes of pytest-xdist: which cores each has, and which tests go together. Imports no torch."""

from __future__ import annotations

import os
from typing import Any

RANKS = "ranks"
_CORES = sorted(os.sched_getaffinity(0))  # before a test process keeps to some of them


def _are_own_cores(workers: int) -> bool:
    """Whether each test process has cores of its own.

    Ranks wait for each other many times a step. Where another process takes turns with one of them the others wait for it as
    well: tests of several ranks take two to three times as long beside another test process on two cores as on a core of
    their own.
    """
    return workers <= len(_CORES)


def cores_of_worker() -> list[int] | None:
    """The cores that a test process keeps to, with all that it starts; None outside of xdist and where there are too few."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    count = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if count == 1 or not _are_own_cores(count):
        return None
    return _CORES[number % count :: count]


def scheduling(config: Any, log: Any) -> Any:
    """Files as wholes, so that what their tests share is made once, in the order of collection.

    The tests of several ranks of all files together are for one process where it has no cores of its own.
    """
    from xdist.scheduler import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            group: str = super()._split_scope(nodeid)
            return group.split("::", 1)[0]

    config.option.loadscopereorder = False  # else the files with the most tests come first
    return ByFile(config, log)
