"""What `moss plan layouts` suggests can be run and fits; what it refuses, it refuses for a reason."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import InputError
from moss_train.config.compose import compose
from moss_train.config.schema import ParallelConfig
from moss_train.parallel.sizes import check_sizes
from moss_train.planning.expected import ExpectedPack
from moss_train.planning.hardware import Cluster
from moss_train.planning.layouts import describe, other_words, parse_ranks, search, smallest
from moss_train.planning.run_plan import check_layout, plan_run

PACK = ExpectedPack(8192, 120.0, 6.0, 6e6, 1e5, 6000.0, "a test's pack")
STAGES = {name: compose([f"stage={name}", "train.global_batch_size=128"]) for name in ("pt1", "pt2", "sft_realtime")}


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(sorted(STAGES)), st.sampled_from([1, 2, 6, 8, 24, 64, 256, 4096]), st.sampled_from(["A100", "H100", "H200"])
)
def test_suggestions_can_be_run_and_fit_by_their_own_report(stage: str, ranks: int, gpu: str) -> None:
    config, cluster = STAGES[stage], Cluster.of(gpu)
    found = search(config, ranks, cluster, PACK)
    for plan in found.plans[:3]:
        check_sizes(plan.config.parallel, ranks)
        again = plan_run(plan.config, ranks, cluster, PACK)
        assert again.fits and again.why_not() is None and again.time.total == plan.time.total
        assert plan.memory.worst.total < cluster.gpu.memory
        assert check_layout(plan.config, ranks) == (plan.replicas, plan.micro_batches)
    times = [plan.time.total for plan in found.plans]
    assert not times or times[0] <= 1.02 * min(times)
    if found.best is None:
        assert found.refused and (found.nearest is None or not found.nearest.fits)
    if found.second is not None and found.best is not None:
        assert found.second.config.parallel != found.best.config.parallel


def test_a_suggestion_as_overrides_is_that_layout() -> None:
    config = STAGES["pt2"]
    best = search(config, 16, Cluster.of("H100"), PACK).best
    assert best is not None
    words = [*describe(best.config).split(), *other_words(best.config, config).split()]
    assert compose(["stage=pt2", "train.global_batch_size=128", *words]) == best.config
    assert describe(dataclasses.replace(config, parallel=ParallelConfig())) == "parallel=single"


def test_the_smallest_number_of_gpus_fits_and_half_of_it_does_not() -> None:
    config, cluster = compose(["stage=pt2", "model=90b"]), Cluster.of("H100")
    assert search(config, 8, cluster, PACK).best is None
    found = smallest(config, cluster, PACK, 8)
    assert found is not None and found.best is not None and found.ranks > 8
    assert search(config, found.ranks // 2, cluster, PACK).best is None


def test_what_no_number_of_gpus_can_do_is_told_as_such() -> None:
    config = compose(["stage=pt2", "train.global_batch_size=1", "stage.sequence_length=64000000"])
    assert smallest(config, Cluster.of("A100"), dataclasses.replace(PACK, rows=64_000_000), 8) is None


def test_more_memory_and_more_gpus_are_never_slower() -> None:
    config = STAGES["pt2"]
    small, large = (search(config, 32, Cluster.of(gpu), PACK).best for gpu in ("H100", "H200"))
    assert small is not None and large is not None and large.time.total <= small.time.total
    more = search(config, 64, Cluster.of("H100"), PACK).best
    assert more is not None and more.time.total < small.time.total


def test_numbers_of_gpus_are_read() -> None:
    assert parse_ranks(["8..64"]) == [8, 16, 32, 64] and parse_ranks(["12", "3"]) == [3, 12] and parse_ranks(["8..100"])[-1] == 64
    for wrong in ("0", "x", "8..", "64..8", "-3", "8..10000000"):
        with pytest.raises(InputError, match="--ranks"):
            parse_ranks([wrong])


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_ranges_double_and_stay_within_their_ends(low: int, high: int) -> None:
    if high < low:
        return
    numbers = parse_ranks([f"{low}..{high}"])
    assert numbers[0] == low and numbers[-1] <= high < 2 * numbers[-1]
    assert all(b == 2 * a for a, b in pairwise(numbers))
