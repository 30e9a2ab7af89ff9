"""Every choice of optimizer computes in data, tensor and pipeline parallel layouts what it computes on one rank."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.moss_train.engines.optimizer_ranks import CASES, reference_runs
from tests.ranks import RunRanks

LAYOUTS = ("dp4", "tp2:muon,modules", "pp2:modules,ema", "tp2.pp2:muon")
"""The first: four micro-batches on four replicas; tp2 and pp2: two each on two replicas; the reference: four on one."""


@pytest.mark.ranks
def test_four_ranks_compute_what_one_computes(run_ranks: RunRanks, tmp_path: Path) -> None:
    reference_runs(tmp_path / "one.pt")
    output = run_ranks("tests.moss_train.engines.optimizer_ranks", 4, tmp_path / "one.pt", *LAYOUTS, timeout=150)
    reports = json.loads(next(line for line in output.splitlines() if "REPORT " in line).split("REPORT ", 1)[1])
    assert len(reports) == len(CASES) + 2 + 2 + 1
    assert sorted(name for name, report in reports.items() if "ema" in report) == ["dp4/ema", "pp2/ema"]
    for name, report in reports.items():
        assert report["loss"] <= 1e-6 and report["norm"] <= 1e-5, (name, report)
        # A moment that rounds to the other side moves by 2^-8 of itself, and an update with it.
        assert report["weights"][0] <= (1e-4 if "moments" in name else 2e-6), (name, report)
        assert report.get("ema", [0.0])[0] <= 1e-6, (name, report)
        assert report["groups"], name
