"""Weights and optimizer states go from layout to layout through checkpoints and stay the same bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.ranks import RunRanks


@pytest.mark.ranks
def test_every_state_survives_every_layout(tmp_path: Path, run_ranks: RunRanks) -> None:
    output = run_ranks("tests.moss_train.checkpoint.reshard_ranks", 2, tmp_path, timeout=240)
    faults = json.loads(next(line for line in output.splitlines() if "REPORT " in line).split("REPORT ", 1)[1])
    assert faults == {"fp32": [], "bf16": [], "small states": []}
