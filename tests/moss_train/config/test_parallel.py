"""Values of the group `parallel` that no model can be cut into."""

from __future__ import annotations

import pytest

from model.errors import InputError
from moss_train.config.schema import ParallelConfig


@pytest.mark.parametrize("layers", [[0, 5], [-1, 2]])
def test_a_stage_without_layers_is_refused(layers: list[int]) -> None:
    with pytest.raises(InputError, match=r"parallel\.stage_layers is .* at least one layer"):
        ParallelConfig(pipeline=2, stage_layers=layers)


def test_uneven_stages_are_taken() -> None:
    assert ParallelConfig(pipeline=2, stage_layers=[1, 4]).stage_layers == [1, 4]
