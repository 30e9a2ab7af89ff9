"""Tensor, pipeline and data parallel layouts compute what one rank computes, for every freeze preset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.moss_train.parity_ranks import DENSE, ONE_CROSS_LAYER, OPTIMIZERS, PRESETS, SAMPLES, STEPS
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


def _check(reports: dict[str, Any], layouts: tuple[str, ...], ranks: int) -> int:
    """Assert everything of every report; returns how many there were."""
    presets = sum(1 if ":" in layout else len((*PRESETS, DENSE)) for layout in layouts)
    assert len(reports) == presets * len(OPTIMIZERS)
    for name, report in reports.items():
        assert report["loss"] <= 1e-6, (name, report)
        assert report["norm"] <= 1e-4, (name, report)
        assert report["statistics"] <= 1e-5, (name, report)
        assert report["weights"][0] <= (1e-6 if name.endswith("sgd") else 1e-5), (name, report)
        if name.endswith("sgd"):
            assert report["gradients"][0] <= 1e-5, (name, report)
            assert report["trained"] > 0, name
        # The run that keeps the state of one frame encodes the others a second time.
        again = FRAMES // ranks - 1 if name.endswith("/all/sgd") else 0
        assert report["again"] == [again] * STEPS, (name, report["again"])
        for planned, ran, distinct in zip(report["encoded"], report["towers"], report["distinct"], strict=True):
            assert len(planned) == ranks
            assert [count - again for count in ran] == planned, (name, ran, planned)
            assert sum(planned) == FRAMES and max(planned) - min(planned) <= 1 and min(planned) > 0, (name, planned)
            assert distinct == FRAMES, (name, distinct)  # no frame is left out, none is encoded by two ranks
    return len(reports)


def test_two_ranks(run_ranks: RunRanks, reference: Path) -> None:
    layouts = ("tp2", "pp2", "dp2", "tp2.sp:all", "pp2.vpp2:all", *(f"pp2:{preset}" for preset in ONE_CROSS_LAYER))
    assert _check(_reports(run_ranks(SCRIPT, 2, reference, *layouts, timeout=300)), layouts, 2)


def test_four_ranks(run_ranks: RunRanks, reference: Path) -> None:
    """Tensor and pipeline parallel together, and each with data parallel."""
    layouts = ("tp2.pp2", "tp2:all", "pp2:all")
    assert _check(_reports(run_ranks(SCRIPT, 4, reference, *layouts, timeout=300)), layouts, 4)
