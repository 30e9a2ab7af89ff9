"""Tensor, pipeline and data parallel layouts compute what one rank computes, for every freeze preset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.moss_train.parity_ranks import OPTIMIZERS, PRESETS, SAMPLES, STEPS
from tests.ranks import RunRanks

pytestmark = pytest.mark.ranks
SCRIPT = "tests.moss_train.parity_ranks"
FRAMES = sum(frames for samples in SAMPLES for _, frames in samples)


@pytest.fixture(scope="module")
def reference(run_ranks: RunRanks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one rank."""
    path = tmp_path_factory.mktemp("parity") / "one.pt"
    run_ranks(SCRIPT, 1, path, "one")
    return path


def _reports(output: str) -> dict[str, Any]:
    line = next(line for line in output.splitlines() if "REPORT " in line)
    reports: dict[str, Any] = json.loads(line.split("REPORT ", 1)[1])
    return reports


def _check(reports: dict[str, Any], layouts: tuple[str, ...]) -> None:
    assert len(reports) == len(layouts) * len(PRESETS) * len(OPTIMIZERS)
    for name, report in reports.items():
        assert report["loss"] <= 1e-6, (name, report)
        assert report["norm"] <= 1e-4, (name, report)
        assert report["statistics"] <= 1e-5, (name, report)
        assert report["weights"][0] <= (1e-6 if name.endswith("sgd") else 1e-5), (name, report)
        if name.endswith("sgd"):
            assert report["gradients"][0] <= 1e-5, (name, report)
            assert report["trained"] > 0, name
        for encoded in report["encoded"]:
            assert len(encoded) == (4 if "tp2.pp2" in name else 2)
            assert sum(encoded) == FRAMES and min(encoded) > 0 and max(encoded) - min(encoded) <= 1, (name, encoded)
        # The run that keeps the state of one frame encodes the others a second time.
        expected = max(report["encoded"][0]) - 1 if name.endswith("/all/sgd") else 0
        assert report["again"] == [expected] * STEPS, (name, report["again"])


def test_two_ranks(run_ranks: RunRanks, reference: Path) -> None:
    layouts = ("tp2", "tp2.sp", "pp2", "pp2.vpp2", "dp2")
    _check(_reports(run_ranks(SCRIPT, 2, reference, *layouts, timeout=240)), layouts)


def test_four_ranks(run_ranks: RunRanks, reference: Path) -> None:
    _check(_reports(run_ranks(SCRIPT, 4, reference, "tp2.pp2", timeout=240)), ("tp2.pp2",))
