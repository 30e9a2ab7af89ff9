"""Tests that start several processes wait for each other."""

from __future__ import annotations

import os

import pytest


@pytest.mark.ranks
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_tests_of_several_ranks_share_one_worker(request: pytest.FixtureRequest) -> None:
    # The suffix is what pytest-xdist distributes by; without it two such tests share the cores and reach their time limits.
    assert request.node.nodeid.endswith("@ranks")
