"""Tensor, sequence, pipeline and virtual pipeline parallel decoders equal one rank, gradients included."""

from __future__ import annotations

import pytest

from tests.ranks import RunRanks

CONTEXT_2 = ("cp2", "cp2:attend_all", "cp2:recompute", "cp2:frozen")
CONTEXT_4 = ("cp4", "tp2_cp2", "tp2_sp_cp2:recompute", "pp2_vpp2_cp2")
MORE = ("tp2_sp_cp2", "pp2_cp2", "pp2_vpp2_cp2:frozen")
"""Which the others are made of too."""


@pytest.mark.ranks
def test_every_layout_equals_one_rank_and_round_trips_exactly(run_ranks: RunRanks) -> None:
    output = run_ranks("tests.model.layouts_ranks", 2, "tp2", "tp2_sp", "pp2", "pp2_vpp2")
    for layout in ("tp2", "tp2_sp", "pp2", "pp2_vpp2"):
        assert f"{layout} rank 0" in output


@pytest.mark.ranks
@pytest.mark.parametrize(
    ("ranks", "cases"),
    [(2, CONTEXT_2), (4, CONTEXT_4), pytest.param(4, MORE, marks=pytest.mark.slow)],
    ids=["two", "four", "more"],
)
def test_context_parallel_layouts_equal_one_rank(run_ranks: RunRanks, ranks: int, cases: tuple[str, ...]) -> None:
    """Also with rows that attend to frames of other ranks alone, a micro-batch of fewer frames than ranks, and one of none."""
    output = run_ranks("tests.model.layouts_ranks", ranks, *cases)
    for case in cases:
        assert f"{case} rank 0" in output
