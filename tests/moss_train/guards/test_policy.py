"""What is done about an update whose numbers cannot be trusted."""

from __future__ import annotations

import pytest

from model.errors import InputError
from moss_train.feed.feed import Delivery
from moss_train.guards.policy import Action, Guard
from moss_train.monitors.base import Update
from moss_train.statistics import StepStatistics


def update(step: int, loss: float = 1.5, norm: float = 1.0) -> Update:
    """A step with these numbers."""
    statistics = StepStatistics(loss=loss, targets=1, class_loss={}, dataset_loss={}, tokens=1, frames=0)
    return Update(step, Delivery([], {}, 1, 1, 0.0, 0.0), statistics, norm, {"decoder": 1e-3, "vision": 1e-3})


@pytest.mark.parametrize(("loss", "norm"), [(float("nan"), 1.0), (1.0, float("inf"))])
def test_no_number_ends_the_run(loss: float, norm: float) -> None:
    guard = Guard()
    assert guard.judge(update(3)) is Action.APPLY
    with pytest.raises(InputError, match="in step 4"):
        guard.judge(update(4, loss, norm))


def test_guard_looks_at_the_held_out_loss() -> None:
    """The last update of a run is followed by no other loss before its checkpoint."""
    guard = Guard()
    guard.evaluated({"step": 3, "eval_loss": 2.0})
    with pytest.raises(InputError, match="eval_loss is nan after step 4; nothing was saved"):
        guard.evaluated({"step": 4, "eval_loss": float("nan")})
