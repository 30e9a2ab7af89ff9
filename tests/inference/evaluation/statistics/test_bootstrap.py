"""Intervals: values by hand, properties, and how often they hold the truth."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.evaluation.items import Item
from inference.evaluation.statistics.bootstrap import BootstrapSettings, bootstrap
from inference.evaluation.statistics.intervals import _acceleration, interval
from inference.evaluation.statistics.sample import Sample, group_by_cluster
from model.errors import InputError
from tests.inference.evaluation.statistics.made_up import MEAN_SUMS, accuracy, item, mean

NONE = np.array([])


def test_percentiles_by_hand() -> None:
    """Of 0, 1, …, 100 the quantile q lies at 100 q: 2.5 and 97.5."""
    found = interval(50.0, np.arange(101.0), NONE, 0.95, "percentile")
    assert found.low == pytest.approx(2.5) and found.high == pytest.approx(97.5) and found.method == "percentile"


def test_bias_correction_by_hand() -> None:
    """Replicates 1 to 9, estimate 4: three below and half of one equal are 3.5 / 9 = 0.38889, whose normal quantile is
    z0 = -0.28222. The ends lie at the shares Phi(2 z0 -+ 1.95996) = Phi(-2.52440) = 0.0057946 and Phi(1.39552) = 0.91857,
    in the replicates 1 + 8 * share: 1.04636 and 8.34857."""
    found = interval(4.0, np.arange(1.0, 10.0), NONE, 0.95, "bca")
    assert found.low == pytest.approx(1.04636, abs=1e-4) and found.high == pytest.approx(8.34857, abs=1e-4)
    assert found.method == "bca"


def test_acceleration_by_hand() -> None:
    """0, 0, 3 have mean 1; mean less value: 1, 1, -2; cubes -6, squares 6: -6 / (6 * 6 ** 1.5) = -0.068041."""
    assert _acceleration(np.array([0.0, 0.0, 3.0])) == pytest.approx(-0.068041, abs=1e-6)
    assert _acceleration(np.array([2.0, 2.0])) == 0.0


def test_acceleration_moves_both_ends_by_hand() -> None:
    """Estimate 5 of 1 to 9 has no bias (4.5 / 9). With a = -0.068041 the ends lie at Phi(z / (1 - a z)): for z = -1.95996
    1 - a z = 0.866643, Phi(-2.26155) = 0.011862; for 1.95996 it is 1.133357, Phi(1.72934) = 0.958126; 1 + 8 * share."""
    found = interval(5.0, np.arange(1.0, 10.0), np.array([0.0, 0.0, 3.0]), 0.95, "bca")
    assert found.low == pytest.approx(1 + 8 * 0.011862, abs=1e-3) and found.high == pytest.approx(1 + 8 * 0.958126, abs=1e-3)


def test_what_has_no_interval_says_why() -> None:
    assert interval(None, np.array([1.0]), NONE, 0.95, "bca").note == "nothing was asked"
    mostly_undefined = np.array([np.nan, np.nan, np.nan, 1.0])
    assert interval(1.0, mostly_undefined, NONE, 0.95, "bca").note == "too few clusters have it"
    alike = interval(1.0, np.ones(10), NONE, 0.95, "bca")
    assert (alike.low, alike.high, alike.note) == (1.0, 1.0, "all resamples alike")
    one = bootstrap([item("only", "q0", 1), item("only", "q1", 0)], accuracy)
    assert one["all.accuracy"].estimate == 0.5 and one["all.accuracy"].low is None
    assert one["all.accuracy"].note == "one cluster only"
    assert bootstrap([], accuracy) == {}


def test_replicates_on_one_side_fall_back_to_percentiles() -> None:
    found = interval(0.0, np.arange(1.0, 11.0), NONE, 0.95, "bca")
    assert found.method == "percentile" and found.low == 0.0


def test_two_clusters_by_hand() -> None:
    """One wrong and one right cluster: resamples hold 0, 1 or 2 right of 2 with chances 1/4, 1/2, 1/4: the interval is [0, 1]."""
    found = bootstrap([item("a", "q0", 0), item("b", "q0", 1)], accuracy, BootstrapSettings(resamples=200))["all.accuracy"]
    assert (found.estimate, found.low, found.high) == (0.5, 0.0, 1.0)


def test_items_of_one_cluster_go_together() -> None:
    """20 scenarios with five equal answers each: as wide as with one answer each, and wider than if all 100 were independent."""
    rights = [place % 2 for place in range(20)]
    single = [item(f"s{place:02}", "q0", right) for place, right in enumerate(rights)]
    copies = [item(f"s{place:02}", f"q{q}", right) for place, right in enumerate(rights) for q in range(5)]
    alone = [item(f"s{place:02}", f"q{q}", right, cluster=f"{place}/{q}") for place, right in enumerate(rights) for q in range(5)]
    widths = []
    for items in (single, copies, alone):
        found = bootstrap(items, mean, BootstrapSettings(resamples=400, method="percentile"), MEAN_SUMS)["mean"]
        assert found.low is not None and found.high is not None
        widths.append(found.high - found.low)
    assert widths[0] == pytest.approx(widths[1]) and widths[2] < 0.6 * widths[1]


items_strategy = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from(["t", "u"])), min_size=1, max_size=16
)


def _items(rows: list[tuple[int, float, str]]) -> list[Item]:
    return [item(f"s{scenario}", f"q{place}", right, task) for place, (scenario, right, task) in enumerate(rows)]


@settings(max_examples=40, deadline=None)
@given(rows=items_strategy, seed=st.integers(0, 5), method=st.sampled_from(["bca", "percentile"]))
def test_intervals_hold_the_estimate_and_do_not_depend_on_order(
    rows: list[tuple[int, float, str]], seed: int, method: str
) -> None:
    items = _items(rows)
    wanted = BootstrapSettings(resamples=40, seed=seed, method=method)
    found = bootstrap(items, accuracy, wanted)
    mixed = list(items)
    random.Random(seed).shuffle(mixed)
    assert bootstrap(mixed, accuracy, wanted) == found
    assert {name: one.estimate for name, one in found.items()} == pytest.approx(accuracy(items))
    for one in found.values():
        assert one.low is None or (one.high is not None and one.estimate is not None and one.low <= one.estimate <= one.high)


@settings(max_examples=40, deadline=None)
@given(rows=items_strategy)
def test_sums_give_what_aggregation_gives(rows: list[tuple[int, float, str]]) -> None:
    items = _items(rows)
    by_sums, by_items = (bootstrap(items, mean, BootstrapSettings(resamples=30), sums)["mean"] for sums in (MEAN_SUMS, None))
    assert by_sums.estimate == pytest.approx(by_items.estimate)
    assert by_sums.low == pytest.approx(by_items.low, abs=1e-6) and by_sums.high == pytest.approx(by_items.high, abs=1e-6)


def test_a_resample_repeats_clusters() -> None:
    """Twice cluster a (right 1, 0) and once b (right 1): 3 right of 5."""
    groups = group_by_cluster([item("a", "q0", 1), item("b", "q0", 1), item("a", "q1", 0)])
    assert list(groups) == ["a", "b"]
    sample = Sample(list(groups.values()), mean)
    assert sample.metrics(np.array([2, 1])) == {"mean": 0.6} and sample.metrics(np.array([0, 0])) == {"mean": None}


def _coverage(clustered: bool, simulations: int = 100, clusters: int = 40, members: int = 5) -> float:
    """Share of simulations whose 90 % interval holds the true mean 0; the members of a cluster share half of their variance."""
    generator = np.random.default_rng(3)
    held = 0
    for seed in range(simulations):
        shared = generator.normal(size=(clusters, 1))
        values = shared + generator.normal(size=(clusters, members))
        items = [
            item(f"s{row}", f"q{column}", float(values[row, column]), **({} if clustered else {"cluster": f"{row}/{column}"}))
            for row in range(clusters)
            for column in range(members)
        ]
        found = bootstrap(
            items, mean, BootstrapSettings(resamples=120, seed=seed, confidence=0.9, method="percentile"), MEAN_SUMS
        )["mean"]
        assert found.low is not None and found.high is not None
        held += found.low <= 0.0 <= found.high
    return held / simulations


def test_nine_of_ten_intervals_hold_the_truth_only_where_clusters_stay_together() -> None:
    """Forty clusters give a little less than 0.9 (0.88 over 800 trials); the standard error of 100 trials is 0.03."""
    assert 0.79 <= _coverage(clustered=True) <= 0.97
    assert _coverage(clustered=False, simulations=40) < 0.7


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"resamples": 0}, "resamples"),
        ({"confidence": 1.0}, "confidence"),
        ({"method": "wild"}, "method"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, float | str], named: str) -> None:
    with pytest.raises(InputError, match=named):
        BootstrapSettings(**values)  # type: ignore[arg-type]


def test_progress_is_told_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    bootstrap(
        [item("a", "q0", 0), item("b", "q0", 1)], mean, BootstrapSettings(resamples=10), on_done=lambda *at: told.append(at)
    )  # fmt: skip
    assert told[-1] == (12, 12) and [done for done, _ in told] == list(range(1, 13))
