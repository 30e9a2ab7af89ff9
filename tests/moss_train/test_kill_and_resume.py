"""A run whose loader is killed, continued at another number of replicas; `kill_and_resume.py` does it 20 times and with four.

Killed ranks and groups are in `tests/moss_train/kills`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.moss_train.kill_and_resume import LIMIT, Start, kill_and_resume
from tests.ranks import Ranks

pytestmark = pytest.mark.ranks


class StartOfForks(Start):
    """Nothing is sent to it, so that it may lack the time that processes take to start."""

    def __init__(self, starter: Ranks, *values: Any, **named: Any) -> None:
        self._starter = starter
        super().__init__(*values, **named)

    def _begin(self) -> None: ...

    def wait(self) -> int:
        self._starter.run("tests.moss_train.train_ranks", self.replicas, self._file, timeout=LIMIT)
        return 0

    def leaders(self) -> list[int]:
        return self._starter.pids


def test_a_run_whose_loader_is_killed_continues_at_another_size(tmp_path: Path, starter: Ranks) -> None:
    """One and two replicas: the same samples, and the same losses in fp32, so the optimizer's state moved as well."""
    steps = 14
    left_alone = partial(StartOfForks, starter)
    report = kill_and_resume(tmp_path, steps, kills=1, seed=5, sizes=(1, 2), targets=("loader",), left_alone=left_alone)
    rows = report["rows"]
    assert [row["killed"] for row in rows] == ["loader", "finish"]
    assert rows[0]["exit_code"] == 2 and rows[1]["continued_from_step"] > 0
    assert [row["first_difference"] for row in rows] == [None] * 2
    assert [row["left_over"] for row in rows] == [[]] * 2
    assert report["steps_equal"] == steps
    assert report["largest_relative_loss_difference"] < 1e-6
