"""Values of the group `parallel` that no model can be cut into."""

from __future__ import annotations

import pytest

from model.errors import InputError
from moss_train.config.schema import ParallelConfig


@pytest.mark.parametrize("layers", [[0, 5], [-1, 2]])
def test_a_stage_without_layers_is_refused(layers: list[int]) -> None:
    with pytest.raises(InputError, match=r"parallel\.stage_layers is .* at least one layer"):
        ParallelConfig(pipeline=2, stage_layers=layers)


def test_layers_are_recomputed_only_where_recomputation_is_on() -> None:
    assert ParallelConfig(recompute="full", recompute_layers=32).recompute_layers == 32
    with pytest.raises(InputError, match=r"recompute_layers is 32 with parallel\.recompute none.*set parallel\.recompute=full"):
        ParallelConfig(recompute_layers=32)
    with pytest.raises(InputError, match=r"parallel\.recompute_layers is 0"):
        ParallelConfig(recompute="full", recompute_layers=0)


def test_uneven_stages_are_taken() -> None:
    assert ParallelConfig(pipeline=2, stage_layers=[1, 4]).stage_layers == [1, 4]
