"""A rank that keeps the others waiting is named, wherever in the step it loses its time."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moss_train.guards.stragglers import slow_ranks
from tests.moss_train.runs import write_data
from tests.ranks import RunRanks


@given(st.lists(st.floats(0.5, 0.55), min_size=2, max_size=32), st.integers(0, 31), st.floats(2.0, 9.0), st.floats(0.1, 10.0))
def test_one_slow_rank_of_a_stage(busy: list[float], which: int, times: float, other_stage: float) -> None:
    """The other stage is as slow as it wants."""
    which %= len(busy)
    busy[which] *= times
    everyone = busy + [value * other_stage for value in (1.0, 1.1)]
    found = slow_ranks(everyone, [0] * len(busy) + [1, 1], factor=1.5)
    assert list(found) == [which] and found[which] > 1.5


@pytest.mark.ranks
def test_on_ranks(run_ranks: RunRanks, tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    output = run_ranks("tests.moss_train.guards.straggler_ranks", 2, tmp_path / "data", tmp_path, timeout=150)
    for folder in sorted(tmp_path.glob("[dt]p2_*")):
        reports = [json.loads(line) for line in (folder / "stragglers.jsonl").read_text().splitlines()]
        assert [(report["step"], report["steps"]) for report in reports] == [(3, 3), (6, 3)]
        last = reports[-1]
        if folder.name.endswith("nowhere"):
            assert last["busy_seconds"][1] < 2 * last["busy_seconds"][0], last
            continue
        fast, slow = last["busy_seconds"]
        assert slow - fast > 0.2, (folder.name, last)  # of the 0.3 s or more that it sleeps
        assert [(entry["rank"], entry["host"]) for entry in last["slow"]] == [(1, socket.gethostname())]
        assert (last["data_seconds"][1] > 0.2) == folder.name.endswith("data")
        warnings = [
            line for line in output.splitlines() if str(folder) in line and line.startswith("moss: warning: rank 1 on host ")
        ]
        assert len(warnings) == 1 and "in the last 2 reports" in warnings[0], output
