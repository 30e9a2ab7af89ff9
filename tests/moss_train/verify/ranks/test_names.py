"""Which layouts a chain has."""

from __future__ import annotations

import pytest

from moss_train.verify.ranks.names import CHAINS, KINDS, chain_of


@pytest.mark.parametrize("ranks", CHAINS)
def test_gpus_in_16_bits_leave_out_what_a_deterministic_run_refuses(ranks: int) -> None:
    assert chain_of(ranks, KINDS["torch"], gpu=True) == chain_of(ranks, KINDS["auto"], gpu=False) == CHAINS[ranks]
    chain = chain_of(ranks, KINDS["auto"], gpu=True)
    assert len(chain) >= min(2, len(CHAINS[ranks])) and not any("cp" in name for name in chain)
    assert set(chain) <= set(CHAINS[ranks])
