"""Which suites can be computed from sums, and that this changes nothing."""

from __future__ import annotations

import statistics as plain
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.evaluation.items import Item, Metrics
from inference.evaluation.statistics.bootstrap import BootstrapSettings, bootstrap
from inference.evaluation.statistics.comparison import compare
from inference.evaluation.statistics.condensed import Layout, condense
from inference.evaluation.statistics.sample import Sample, group_by_cluster


def shares(items: Sequence[Item]) -> Metrics:
    """Adds only: right of asked by task, and seconds of those that have them."""
    sums: dict[str, float] = {}
    for item in items:
        for name, value in item.values.items():
            key = f"{item.task}.{name}"
            sums[key] = sums.get(key, 0.0) + value
    tasks = sorted({item.task for item in items})
    found: Metrics = {f"{task}.share": sums[f"{task}.right"] / sums[f"{task}.asked"] for task in tasks}
    return found | {"seconds": sums.get("t.seconds")}


def medians(items: Sequence[Item]) -> Metrics:
    return {"median": plain.median(item.values["right"] for item in items)}


def means(items: Sequence[Item]) -> Metrics:
    """Counts items, which sums do not."""
    return {"mean": sum(item.values["right"] for item in items) / len(items)}


def needing_details(items: Sequence[Item]) -> Metrics:
    return {"share": sum(item.values["right"] for item in items if item.details["kept"]) / 10}


rows_strategy = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from(["t", "u"]), st.booleans(), st.none() | st.integers(0, 4)),
    min_size=2,
    max_size=20,
)
Rows = list[tuple[int, str, bool, int | None]]


def items_of(rows: Rows) -> list[Item]:
    found = []
    for place, (scenario, task, right, seconds) in enumerate(rows):
        values = {"asked": 1.0, "right": float(right)} | ({} if seconds is None else {"seconds": float(seconds)})
        found.append(
            Item(
                suite="s", scenario_id=f"s{scenario}", item=f"q{place}", task=task, mode="offline", values=values,
                details={"kept": right},
            )
        )  # fmt: skip
    return found


def sample_of(items: Sequence[Item], aggregate: object) -> Sample:
    return Sample(list(group_by_cluster(items).values()), aggregate)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(rows=rows_strategy, drawn=st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_sums_give_the_same_metrics(rows: Rows, drawn: list[int]) -> None:
    items = items_of(rows)
    plainly, summed = sample_of(items, shares), sample_of(items, shares)
    assert condense([summed], shares) and summed.columns is not None
    counts = np.array(drawn[: len(plainly)])
    assert summed.metrics(counts) == pytest.approx(plainly.metrics(counts))


def test_what_is_no_sum_is_found_out() -> None:
    items = items_of([(scenario, "t", scenario % 2 == 0, None) for scenario in range(6)])
    for aggregate in (medians, means, needing_details):
        sample = sample_of(items, aggregate)
        assert not condense([sample], aggregate) and sample.columns is None


def test_both_runs_or_none() -> None:
    """Where all are wrong the mean is 0 in either way; the other run shows that items are counted."""
    wrong = items_of([(scenario, "t", False, None) for scenario in range(6)])
    right = items_of([(scenario, "t", True, None) for scenario in range(6)])
    assert condense([sample_of(wrong, means)], means)
    first, second = sample_of(wrong, means), sample_of(right, means)
    assert not condense([first, second], means) and first.columns is None


def test_sums_by_hand() -> None:
    """Cluster s0: two of task t, one right, one with 3 seconds; s1: one of task u. Twice s0 and no s1."""
    items = items_of([(0, "t", True, 3), (0, "t", False, None), (1, "u", True, None)])
    groups = list(group_by_cluster(items).values())
    layout = Layout(items)
    (one,) = layout.items(np.array([2.0, 0.0]) @ layout.sums(groups))
    assert (one.task, one.item, one.values) == ("t", "q", {"asked": 4.0, "right": 2.0, "seconds": 6.0})


def test_comparisons_and_intervals_agree_with_an_aggregation_that_cannot_be_summed() -> None:
    """The same metrics, once with a median besides, which keeps them from being summed."""

    def with_median(items: Sequence[Item]) -> Metrics:
        return shares(items) | {"median": plain.median(item.values["right"] for item in items)}

    a = items_of([(n % 9, "tu"[n % 2], n % 3 == 0, None) for n in range(40)])
    b = items_of([(n % 9, "tu"[n % 2], n % 4 != 0, None) for n in range(40)])
    wanted = BootstrapSettings(resamples=80)
    one, other = compare(a, b, shares, wanted), compare(a, b, with_median, wanted)
    for name in ("t.share", "u.share"):
        x, y = one.metrics[name], other.metrics[name]
        assert (x.difference, x.low, x.high) == pytest.approx((y.difference, y.low, y.high))
        assert bootstrap(a, shares, wanted)[name].low == pytest.approx(bootstrap(a, with_median, wanted)[name].low)
