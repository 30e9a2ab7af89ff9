"""Transformer Engine's modules under tensor, sequence and context parallelism, on two real ranks."""

from __future__ import annotations

import pytest

from tests.ranks import RunRanks


@pytest.mark.ranks
def test_losses_gradients_and_shards_are_those_of_the_torch_modules(run_ranks: RunRanks) -> None:
    output = run_ranks("tests.model.text.engine_ranks", 2)
    results = {line.split()[1]: line.split()[2:] for line in output.splitlines() if line.startswith("RESULT")}
    assert results.keys() == {"tp2", "tp2_sp", "cp2"}
    for name, (losses, states, gradients, same_shards) in results.items():
        assert float(losses) <= 1e-5 and float(states) <= 1e-5 and float(gradients) <= 1e-5, name
        assert same_shards == "True", name
