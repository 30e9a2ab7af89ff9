"""Adapters in tensor, sequence, pipeline and data parallel layouts compute what one rank computes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.moss_train.lora_ranks import RUNS, reference_runs
from tests.ranks import RunRanks

pytestmark = pytest.mark.ranks
LAYOUTS = ("tp2.sp.full:everywhere", "tp2:everywhere", "dp2:text", "pp2")
"""The first saves, the last continues from there."""
ROUNDING = 3e-5
"""Of gradients and their norms: one rank with other kernels (ATEN_CPU_CAPABILITY=default) parts from itself by 1.1e-5 in first
gradients and by 8e-6 in later norms, since it sums in another order. What counts in a norm is told by `own_norm`."""


def test_two_ranks_compute_what_one_computes(run_ranks: RunRanks, tmp_path: Path) -> None:
    reference_runs(tmp_path / "one.pt")
    output = run_ranks("tests.moss_train.lora_ranks", 2, tmp_path / "one.pt", tmp_path / "run", *LAYOUTS, timeout=240)
    reports = json.loads(next(line for line in output.splitlines() if "REPORT " in line).split("REPORT ", 1)[1])
    assert len(reports) == 2 + 2 + 1 + len(RUNS) + 1
    assert [report["stored"][0] for report in reports.values() if "stored" in report] == [0.0]
    for name, report in reports.items():
        assert report["loss"] <= 1e-6, (name, report)
        assert report["norm"] <= ROUNDING, (name, report)
        assert report.get("own_norm", 0.0) <= 2e-7, (name, report)  # every gradient counts in the norm, and once
        bound = 1e-6 if name.endswith("sgd") else 1e-5
        assert report["weights"][0] <= bound and report["base_weights"][0] <= bound, (name, report)
        if name.endswith("sgd"):
            assert report["gradients"][0] <= ROUNDING and report["base_gradients"][0] <= ROUNDING, (name, report)
            assert "own_norm" in report, name
            moving, factors = report["moving"]
            assert moving == factors == {"everywhere": 72, "cross": 12, "text": 12}[name.split("/")[1]], (name, report)
            assert (report["base_moving"] > 0) == ("everywhere" in name), (name, report)
