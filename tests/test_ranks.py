"""Tests of several ranks wait for each other, and their ranks start and end as processes of their own."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.ranks import RunRanks
from tests.workers import cores_of_worker

pytestmark = pytest.mark.ranks
MODULE = "tests.telling_ranks"


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_of_several_ranks_share_one_worker_or_have_cores_of_their_own(request: pytest.FixtureRequest) -> None:
    # The suffix is what pytest-xdist distributes by. Two such tests that share the cores reach their time limits.
    own = cores_of_worker()
    assert request.node.nodeid.endswith("@ranks") == (own is None)
    assert own is None or os.sched_getaffinity(0) == set(own)


def _found(output: str) -> list[dict[str, Any]]:
    found = [json.loads(line.removeprefix("FOUND ")) for line in output.splitlines() if line.startswith("FOUND ")]
    return sorted(found, key=lambda one: int(one["rank"]))


def test_each_rank_is_a_process_of_its_own(run_ranks: RunRanks) -> None:
    outputs = [run_ranks(MODULE, 2, "good", number, env={"OWN": str(number)}) for number in range(2)]
    for number, output in enumerate(outputs):
        assert output.count("END") == 2  # what is registered for the end of a process has run
        for rank, found in enumerate(_found(output)):
            expected = {"argv": ["good", str(number)], "main": "__main__", "variable": str(number), "world": "2", "rank": rank}
            assert {name: found[name] for name in expected} == expected and found["leads"]
    ranks = [found for output in outputs for found in _found(output)]
    assert len({found["random"] for found in ranks}) == 4
    if "PYTHONHASHSEED" not in os.environ:
        assert ranks[0]["hash"] != ranks[1]["hash"]  # sets of strings have their own order on each rank


def test_the_code_of_the_rank_that_failed_is_asserted(run_ranks: RunRanks) -> None:
    run_ranks(MODULE, 4, "code", expect=5)
    run_ranks(MODULE, 4, "code", expect=None)
    with pytest.raises(AssertionError, match="ended with 5"):
        run_ranks(MODULE, 4, "code")


def test_a_rank_that_hangs_is_ended_with_what_it_started(run_ranks: RunRanks) -> None:
    with pytest.raises(AssertionError, match=r"4 ranks of tests.telling_ranks sleep ran past 1 s") as failed:
        run_ranks(MODULE, 4, "sleep", timeout=1)
    child = int(str(failed.value).split("CHILD ")[1].split()[0])
    deadline = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(_found(run_ranks(MODULE, 4, "good"))) == 4  # the next start is as good as any
