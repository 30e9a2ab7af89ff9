"""Which layouts the checks run in."""

from __future__ import annotations

import pytest

from moss_train.verify.layouts.names import parse_layout
from moss_train.verify.ranks.names import CHAINS, GOLDEN


@pytest.mark.parametrize("ranks", CHAINS)
def test_every_layout_takes_all_ranks(ranks: int) -> None:
    assert {parse_layout(name).ranks for name in (*CHAINS[ranks], *GOLDEN[ranks])} == {ranks}


@pytest.mark.parametrize("ranks", [ranks for ranks in CHAINS if ranks > 1])
def test_a_chain_has_each_kind_of_model_parallelism(ranks: int) -> None:
    sizes = [parse_layout(name).sizes for name in CHAINS[ranks]]
    assert max(s.tensor for s in sizes) > 1 and max(s.pipeline for s in sizes) > 1 and max(s.context for s in sizes) > 1
