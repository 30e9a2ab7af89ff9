"""What is done about an update whose numbers cannot be trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.errors import InputError
from moss_train.config.guard import GuardConfig
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
    written: list[tuple[int, str, dict[str, Any]]] = []

    def dump(update: Update, reason: str, figures: dict[str, Any]) -> str:
        written.append((update.step, reason, figures))
        return "run/anomalies/step_00000004"

    guard = Guard(GuardConfig(), dump)
    assert guard.judge(update(3)) is Action.APPLY and not written
    with pytest.raises(InputError, match="in step 4; its global batch is in run/anomalies/step_00000004; nothing was saved"):
        guard.judge(update(4, loss, norm))
    assert [(step, figures["action"]) for step, _, figures in written] == [(4, "stop")]


def test_guard_looks_at_the_held_out_loss() -> None:
    """The last update of a run is followed by no other loss before its checkpoint."""
    guard = Guard(GuardConfig())
    guard.evaluated({"step": 3, "eval_loss": 2.0})
    with pytest.raises(InputError, match="eval_loss is nan after step 4; nothing was saved"):
        guard.evaluated({"step": 4, "eval_loss": float("nan")})


def test_a_spike_is_measured_against_the_median_of_applied_updates() -> None:
    guard = Guard(GuardConfig(spike_factor=3.0, spike_window=5, spike_warmup=3, spike="rewind"))
    losses = [100.0, 1.0, 1.2, 1.1, 3.5, 3.2, 0.9, 1.0]  # the first is looked at by nobody; the median is then 1.2 and below
    actions = [guard.judge(update(step, loss)) for step, loss in enumerate(losses, 1)]
    assert actions == [Action.APPLY] * 4 + [Action.REWIND, Action.APPLY, Action.APPLY, Action.APPLY]
    assert guard.judge(update(9, 1.0, norm=3.1)) is Action.REWIND and guard.reason.startswith("grad_norm is 3.1, 3.1 times its")
    skipped = update(9, 1.0, norm=3.1)
    skipped.applied, skipped.rewound_to = False, 6
    assert guard.measured(skipped) == {"skip_reason": guard.reason, "rewound_to": 6}


def test_too_many_in_a_row_end_the_run() -> None:
    guard = Guard(GuardConfig(non_finite="skip", max_skipped=2))
    nan = float("nan")
    actions = [guard.judge(update(step, loss)) for step, loss in enumerate((nan, nan, 1.0, nan, nan), 1)]
    assert [action.value for action in actions] == ["skip", "skip", "apply", "skip", "skip"]
    with pytest.raises(InputError, match=r"in step 6, after 2 updates in a row that were left out \(guard.max_skipped\)"):
        guard.judge(update(6, nan))


_VALUES = st.one_of(st.floats(0.0, 10.0), st.just(float("nan")), st.floats(50.0, 1e6))


@given(st.lists(st.tuples(_VALUES, _VALUES), min_size=1, max_size=40), st.integers(0, 40), st.sampled_from(["skip", "rewind"]))
def test_a_continued_guard_decides_as_one_that_was_not_interrupted(
    values: list[tuple[float, float]], cut: int, policy: str
) -> None:
    config = GuardConfig(non_finite=policy, spike=policy, spike_factor=4.0, spike_window=8, spike_warmup=4, max_skipped=50)
    whole, first = Guard(config), Guard(config)
    expected = [whole.judge(update(step, *pair)) for step, pair in enumerate(values)]
    got = [first.judge(update(step, *pair)) for step, pair in enumerate(values[:cut])]
    second = Guard(config)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    got += [second.judge(update(step, *pair)) for step, pair in enumerate(values[cut:], cut)]
    assert got == expected


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spike_factor": 0.5}, "guard.spike_factor is 0.5; it must be above 1, or 0"),
        ({"spike_warmup": 200}, "guard.spike_warmup is 200, more than guard.spike_window 128"),
        ({"non_finite": "ignore"}, "guard.non_finite is 'ignore'; use one of stop, skip, rewind"),
        ({"hang_seconds": 1e9}, "guard.hang_seconds is 1000000000.0; it must be between 0 and 3000"),
        ({"slow_seconds": 5.0}, "guard.slow_seconds is 5.0, less than guard.hang_seconds 600.0"),
        ({"straggler_factor": 1.0}, "guard.straggler_factor is 1.0; it must be above 1"),
    ],
)
def test_values_that_make_no_sense(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        GuardConfig(**change)
