"""Tensor, sequence, pipeline and virtual pipeline parallel decoders equal one rank, gradients included."""

from __future__ import annotations

import pytest

from tests.ranks import RunRanks


@pytest.mark.ranks
def test_every_layout_equals_one_rank_and_round_trips_exactly(run_ranks: RunRanks) -> None:
    output = run_ranks("tests.model.layouts_ranks", 2, "tp2", "tp2_sp", "pp2", "pp2_vpp2")
    for layout in ("tp2", "tp2_sp", "pp2", "pp2_vpp2"):
        assert f"{layout} rank 0" in output
