"""Two runs: p values and verdicts by hand, properties, and what is refused."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.evaluation.items import Item
from inference.evaluation.run_record import RunRecord, fingerprint, load_record, save_record
from inference.evaluation.schema import PromptEvent, Scenario
from inference.evaluation.statistics.bootstrap import BootstrapSettings
from inference.evaluation.statistics.comparison import Difference, check_same_scenarios, compare
from inference.evaluation.statistics.non_inferiority import KEPT, LOST, OPEN, UNKNOWN, judge_kept
from inference.evaluation.statistics.significance import changed, holm, mcnemar, swap_p_value
from model.errors import InputError
from tests.inference.evaluation.statistics.made_up import MEAN_SUMS, accuracy, item, mean

QUICK = BootstrapSettings(resamples=60)


def run(rights: list[float], task: str = "t") -> list[Item]:
    return [item(f"s{place}", "q0", right, task) for place, right in enumerate(rights)]


def test_exchanges_by_hand() -> None:
    """B is right in all of three clusters, A in none: the difference is 1, and of the 2 ** 3 exchanges only that of nothing
    and that of all have |difference| = 1: p = 2 / 8."""
    found = compare(run([0, 0, 0]), run([1, 1, 1]), accuracy)
    assert found.exact and found.metrics["all.accuracy"].difference == 1.0 and found.metrics["all.accuracy"].p == 0.25


def test_exchanges_of_unequal_clusters_by_hand() -> None:
    """Clusters with 1, 1 and 2 items; B gains 1 in the first, loses 1 in the second, gains 2 in the third: sum 2 of 4 items.
    Exchanges give sums +-1 +-1 +-2 with signs: |1-1+2| = 2, |-1-1+2| = 0, |1+1+2| = 4, |-1+1+2| = 2 and their mirrors
    |1-1-2| = 2, |-1-1-2| = 4, |1+1-2| = 0, |-1+1-2| = 2: six of eight are at least 2."""
    a = [item("x", "q0", 0), item("y", "q0", 1), item("z", "q0", 0), item("z", "q1", 0)]
    b = [item("x", "q0", 1), item("y", "q0", 0), item("z", "q0", 1), item("z", "q1", 1)]
    found = compare(a, b, mean).metrics["mean"]
    assert found.difference == 0.5 and found.p == 0.75


def test_sampled_exchanges_count_the_runs_as_they_are() -> None:
    """Two of four sampled exchanges are as large: (2 + 1) / (4 + 1)."""
    assert swap_p_value(0.5, np.array([0.5, -0.6, 0.1, 0.0]), exact=False) == pytest.approx(0.6)
    assert swap_p_value(0.5, np.array([np.nan]), exact=False) is None


def test_mcnemar_by_hand() -> None:
    """(1, 5): 2 (1 + 6) / 64; (0, 4): 2 / 16; equal: 1; nothing changed: 1; (2, 10): 2 (1 + 12 + 66) / 4096."""
    assert mcnemar(1, 5) == pytest.approx(14 / 64) and mcnemar(5, 1) == pytest.approx(14 / 64)
    assert mcnemar(0, 4) == pytest.approx(0.125) and mcnemar(3, 3) == 1.0 and mcnemar(0, 0) == 1.0
    assert mcnemar(2, 10) == pytest.approx(158 / 4096)


def test_changed_items_by_task() -> None:
    pairs = list(zip(run([1, 1, 0, 0, 1]), run([1, 0, 1, 0, 0]), strict=True)) + list(
        zip(run([0], "u"), run([1], "u"), strict=True)
    )
    found = changed(pairs)
    assert list(found) == ["t.right", "u.right", "all.right"]
    assert (found["t.right"].both, found["t.right"].only_a, found["t.right"].only_b, found["t.right"].neither) == (1, 2, 1, 1)
    assert found["all.right"].only_b == 2 and found["all.right"].p == 1.0
    polled = [(item("s", "q", 0, mode=mode), item("s", "q", 1, mode=mode)) for mode in ("push", "poll")]
    assert {name: one.only_b for name, one in changed(polled).items()} == {"t.push.right": 1, "t.poll.right": 1, "all.right": 2}
    assert changed([(item("s", "q", 0.5), item("s", "q", 1.0))]) == {}  # a share is not right or wrong


def test_holm_by_hand() -> None:
    """0.01 * 3, then max(0.03, 0.03 * 2), then max(0.06, 0.04 * 1); what could not be tested stays so and does not count."""
    assert holm({"a": 0.04, "b": 0.01, "c": None, "d": 0.03}) == pytest.approx({"a": 0.06, "b": 0.03, "c": None, "d": 0.06})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}


items_strategy = st.lists(
    st.tuples(st.integers(0, 4), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=14
)


def _runs(rows: list[tuple[int, float, float]]) -> tuple[list[Item], list[Item]]:
    first = [item(f"s{scenario}", f"q{place}", right) for place, (scenario, right, _) in enumerate(rows)]
    return first, [item(f"s{scenario}", f"q{place}", right) for place, (scenario, _, right) in enumerate(rows)]


@settings(max_examples=25, deadline=None)
@given(rows=items_strategy)
def test_identical_runs_do_not_differ(rows: list[tuple[int, float, float]]) -> None:
    a, _ = _runs(rows)
    found = compare(a, list(reversed(a)), accuracy, QUICK)
    for one in found.metrics.values():
        assert one.difference == 0 and one.p == 1.0 and one.p_holm == 1.0 and one.low in (0, None)
    kept = judge_kept(found.metrics["all.accuracy"], 0.01)
    assert kept.verdict == (KEPT if found.clusters > 1 else OPEN)


@settings(max_examples=25, deadline=None)
@given(rows=items_strategy, seed=st.integers(0, 3))
def test_order_changes_nothing_and_the_other_way_round_changes_signs(rows: list[tuple[int, float, float]], seed: int) -> None:
    a, b = _runs(rows)
    wanted = BootstrapSettings(resamples=60, seed=seed, method="percentile")
    found, back = compare(a, b, mean, wanted), compare(b, a, mean, wanted)
    mixed = list(b)
    random.Random(seed).shuffle(mixed)
    assert compare(list(reversed(a)), mixed, mean, wanted) == found
    one, other = found.metrics["mean"], back.metrics["mean"]
    assert one.difference == pytest.approx(-other.difference) and one.p == pytest.approx(other.p)
    if one.low is not None and other.high is not None:
        assert one.low == pytest.approx(-other.high) and one.low <= one.difference <= (one.high or 0.0)
    by_sums = compare(a, b, mean, wanted, MEAN_SUMS).metrics["mean"]
    assert by_sums.difference == pytest.approx(one.difference) and by_sums.p == pytest.approx(one.p)


def test_a_difference_in_every_cluster_is_found_and_noise_is_not() -> None:
    generator = np.random.default_rng(0)
    base = [float(value) for value in generator.random(40) < 0.5]
    better = compare(run([0.0] * 40), run([1.0] * 30 + [0.0] * 10), mean, BootstrapSettings(resamples=200), MEAN_SUMS)
    noise = compare(run(base), run(list(reversed(base))), mean, BootstrapSettings(resamples=200), MEAN_SUMS)
    one, none = better.metrics["mean"], noise.metrics["mean"]
    assert one.p == pytest.approx(1 / 201) and one.low is not None and one.low > 0.5 and not better.exact
    assert none.difference == 0 and none.p == 1.0 and none.low is not None and none.low < 0


def test_only_common_items_are_compared_and_the_others_counted() -> None:
    found = compare(run([1, 0, 1, 1]), run([1, 1]) + [item("new", "q0", 0)], accuracy)
    assert (found.items, found.clusters, found.only_a, found.only_b) == (2, 2, 2, 1)
    one = found.metrics["all.accuracy"]
    assert (one.a, one.b) == (0.5, 1.0)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="no item in common"):
        compare(run([1]), [item("other", "q0", 1)], mean)
    with pytest.raises(InputError, match=r"second run has item made_up/s0/q0/t/offline twice"):
        compare(run([1]), run([1]) + run([0]), mean)


def difference(value: float | None, lower: float | None = None, upper: float | None = None) -> Difference:
    return Difference(a=0.5, b=0.5, difference=value, low=lower, high=upper, lower=lower, upper=upper, p=0.5)


@pytest.mark.parametrize(
    ("found", "higher", "verdict"),
    [
        (difference(0.0, -0.005, 0.02), True, KEPT),
        (difference(0.0, -0.015, 0.02), True, OPEN),
        (difference(-0.03, -0.05, -0.02), True, LOST),
        (difference(-0.03, -0.05, -0.02), False, KEPT),  # an error that fell
        (difference(0.03, 0.02, 0.05), False, LOST),
        (difference(0.0), True, OPEN),  # no interval proves nothing
        (difference(None), True, UNKNOWN),
    ],
)
def test_verdicts_at_a_margin_of_one_in_a_hundred(found: Difference, higher: bool, verdict: str) -> None:
    assert judge_kept(found, 0.01, higher).verdict == verdict


def test_the_bound_of_the_loss_is_one_sided() -> None:
    """60 clusters, one of which B loses: the mean falls by 1 / 60. The 95 % bound of the loss is the 95 % quantile of
    Poisson-like counts (mean 1: P(X <= 2) = 0.92, P(X <= 3) = 0.98), three of 60; the two-sided interval goes on to the
    97.5 % quantile, which is three too."""
    found = compare(
        run([1.0] * 60), run([1.0] * 59 + [0.0]), mean, BootstrapSettings(resamples=2000, method="percentile"), MEAN_SUMS
    )
    kept = judge_kept(found.metrics["mean"], 0.06)
    assert kept.loss == pytest.approx(1 / 60) and kept.at_most == pytest.approx(3 / 60) and kept.verdict == KEPT
    assert judge_kept(found.metrics["mean"], 0.05).verdict == OPEN


def scenario(**changed: object) -> Scenario:
    values = {"id": "s", "fps": 1.0, "num_frames": 4, "video": "a/clip.mp4", "prompts": [PromptEvent(t=0, text="What?")]}
    return Scenario(**(values | changed))  # type: ignore[arg-type]


def test_scenarios_that_say_other_things_are_refused() -> None:
    same, moved = fingerprint(scenario()), fingerprint(scenario(video="/data/clip.mp4"))
    other = fingerprint(scenario(prompts=[PromptEvent(t=0, text="Who?")]))
    assert same == moved != other
    check_same_scenarios({"s": same, "only": "x"}, {"s": moved}, ("A", "B"))
    with pytest.raises(InputError, match=r"1 of 1 common scenarios differ between A and B, the first is 's'"):
        check_same_scenarios({"s": same}, {"s": other}, ("A", "B"))


def test_run_records_come_back(tmp_path: Path) -> None:
    assert load_record(tmp_path) == RunRecord()
    record = RunRecord(command=["moss", "eval"], fingerprints={"s": "f"}, seconds=1.5)
    save_record(tmp_path, record)
    assert load_record(tmp_path) == record
    (tmp_path / "run.json").write_text('{"command": "moss", "new": 1}')
    with pytest.raises(InputError, match="field command"):
        load_record(tmp_path)
