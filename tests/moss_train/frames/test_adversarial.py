"""Global batches made to break the exchange: every rank makes the same calls, and gradients equal one rank's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.moss_train.frames.adversarial_ranks import CASES, one_rank, trials
from tests.ranks import RunRanks

SCRIPT = "tests.moss_train.frames.adversarial_ranks"
LAYOUTS = ("dp4", "pp2", "cp2")


@pytest.mark.ranks
def test_uneven_and_empty_ranks_compute_what_one_rank_does(run_ranks: RunRanks, tmp_path: Path) -> None:
    reference = tmp_path / "one.pt"
    one_rank(reference)
    output = run_ranks(SCRIPT, 4, reference, *LAYOUTS, timeout=240)
    reports = json.loads(next(line for line in output.splitlines() if "REPORT " in line).split("REPORT ", 1)[1])
    assert len(reports) == sum(len(trials(layout)) for layout in LAYOUTS)
    for key, report in reports.items():
        layout, preset, _, kind, case = key.split("/")
        frames = sum(count for batch in CASES[case] for _, count in batch)
        assert report["loss"] <= 1e-6 and report["norm"] <= 1e-6 and report["gradients"] <= 1e-6, (key, report)
        encoded = report["encoded"]
        assert sum(encoded) == frames and max(encoded) - min(encoded) <= 1, (key, encoded)
        if kind == "windows" and frames > 1:
            assert report["windows"] > 1, key
        assert report["on_host"] == (max(min(3, encoded[0] - 1), 0) if kind == "host" else 0), key
        if layout == "cp2":
            continue  # the decoder itself exchanges queries, as often as its replica has frames
        exchanges = report["exchanges"]
        assert len(set(exchanges)) == 1, (key, exchanges)
        # Pixels, features, and gradients where anything below the features trains: at most once a window.
        assert exchanges[0] <= report["windows"] * (3 if preset == "all" else 2), (key, exchanges)
        assert frames == 1 or (exchanges[0] > 0) == (frames > 0), (key, exchanges)  # one frame may stay where it is
