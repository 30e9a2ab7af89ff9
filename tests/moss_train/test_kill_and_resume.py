"""Runs that are killed and continued at another number of replicas; `kill_and_resume.py` does it 20 times and with four."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.moss_train.kill_and_resume import kill_and_resume

pytestmark = pytest.mark.ranks


def test_a_killed_run_continues_at_another_size(tmp_path: Path) -> None:
    """One and two replicas in turn: the same samples, and the same losses in fp32, so the optimizer's state moved as well."""
    steps = 14
    report = kill_and_resume(tmp_path, steps, kills=3, seed=5, sizes=(1, 2))
    rows = report["rows"]
    assert sorted(row["killed"] for row in rows) == ["finish", "group", "loader", "rank"]
    assert [row["first_difference"] for row in rows] == [None] * 4
    assert [row["left_over"] for row in rows] == [[]] * 4
    assert any(row["continued_from_step"] for row in rows)
    assert report["steps_equal"] == steps
    assert report["largest_relative_loss_difference"] < 1e-6
