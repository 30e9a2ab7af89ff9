"""A run whose loader is killed, continued at another number of replicas; `kill_and_resume.py` does it 20 times and with four.

Killed ranks and groups are in `tests/moss_train/kills`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.moss_train.kill_and_resume import kill_and_resume

pytestmark = pytest.mark.ranks


def test_a_run_whose_loader_is_killed_continues_at_another_size(tmp_path: Path) -> None:
    """One and two replicas: the same samples, and the same losses in fp32, so the optimizer's state moved as well."""
    steps = 14
    report = kill_and_resume(tmp_path, steps, kills=1, seed=5, sizes=(1, 2), targets=("loader",))
    rows = report["rows"]
    assert [row["killed"] for row in rows] == ["loader", "finish"]
    assert rows[0]["exit_code"] == 2 and rows[1]["continued_from_step"] > 0
    assert [row["first_difference"] for row in rows] == [None] * 2
    assert [row["left_over"] for row in rows] == [[]] * 2
    assert report["steps_equal"] == steps
    assert report["largest_relative_loss_difference"] < 1e-6
