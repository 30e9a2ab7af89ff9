"""What is counted of rows and rejections."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.generator.card.histogram import Counts, Histogram
from data_pipeline.generator.card.tally import Tally, kind_of
from model.errors import InputError
from tests.data_pipeline.generator.card.builds import count_words, dialogue, laid_out, tally_of


def test_one_row_is_counted_slot_by_slot() -> None:
    tally = tally_of(laid_out())
    # 3 words at 3 s; 8 of 11 words at 6 and 7 s until the question; 5 words at 8 and 9 s; 5 at 10 and 11 s.
    assert tally.sums["rows"] == 1 and tally.sums["frames"] == 16 and tally.sums["seconds"] == 16
    assert tally.sums["silent_frames"] == 9
    assert tally.sums["preempted"] == 1 and tally.sums["corrections"] == 1
    assert tally.sums["tokens"] == 3 + 6 + 5 + 5
    slots = tally.histograms["tokens_per_slot"]
    assert slots.n == 7 and slots.total == 19 and slots.high == 3
    delays = tally.histograms["onset_minus_question"]
    assert (delays.low, delays.high) == (0.5, 5.5)
    assert tally.histograms["onset_minus_evidence"].high == 1.0
    assert tally.behaviours["correction"] == {"rows": 1, "frames": 16, "silent_frames": 9, "utterances": 4}
    assert tally.counts["answer_values"].values == {"red ball and blue flag": 1, "green ball and blue flag": 1}
    assert tally.counts["provenance"].values == {"world\tCC0": 1}


def test_a_row_that_is_not_laid_out_is_refused() -> None:
    with pytest.raises(InputError, match="lay it out"):
        Tally().add(dialogue(), count_words)


def test_what_was_never_said_is_counted_apart() -> None:
    row = laid_out(rate=0.2)
    tally = tally_of(row)
    assert tally.sums["unsaid"] == sum(u.span is None for u in row.utterances) > 0
    assert tally.sums["utterances"] + tally.sums["unsaid"] == 4


@given(st.lists(st.sampled_from([0.3, 1.0, 3.0, 8.0, 40.0]), min_size=1, max_size=8), st.integers(0, 8))
def test_merging_parts_counts_as_one_pass_does(rates: list[float], cut: int) -> None:
    rows = [laid_out(f"r{i}", rate) for i, rate in enumerate(rates)]
    whole, first, second = tally_of(*rows), tally_of(*rows[:cut]), tally_of(*rows[cut:])
    for i, tally in enumerate((whole, first, second)):
        for j in range(i + 1):
            if i:
                tally.reject("plan", f"nothing at {j} s")
    for _ in range(5):
        whole.reject("plan", "nothing at 9 s")
    first.merge(Tally.from_dict(json.loads(json.dumps(second.to_dict()))))
    left, right = first.to_dict(), whole.to_dict()
    assert left["rejections"][0][3] == 5 == right["rejections"][0][3]
    for name in ("sums", "behaviours", "split_keys", "videos", "counts"):
        assert left[name] == right[name]
    for name, one in left["histograms"].items():
        assert one["counts"] == right["histograms"][name]["counts"]


@given(st.lists(st.floats(-5, 200), min_size=1, max_size=60))
def test_every_value_falls_into_the_bin_that_holds_it(values: list[float]) -> None:
    histogram = Histogram((0.0, 1.0, 4.0, 16.0))
    for value in values:
        histogram.add(value)
    near = 1e-9
    assert histogram.n == len(values)
    assert histogram.below == sum(v + near < 0 for v in values)
    assert histogram.counts[1] == sum(1 <= v + near < 4 for v in values)
    assert histogram.counts[3] == sum(v + near >= 16 for v in values)
    assert (histogram.low, histogram.high) == (min(values), max(values))


def test_the_median_lies_in_the_middle_bin() -> None:
    histogram = Histogram((0.0, 1.0, 2.0, 3.0))
    for value in (0, 1, 1, 2, 3):
        histogram.add(value)
    assert histogram.share_point(0.5) == 1.0
    assert Histogram((0.0,)).share_point(0.5) is None


def test_rare_texts_go_first_and_nothing_is_lost() -> None:
    counts, rng = Counts(most=10), random.Random(0)
    for _ in range(5000):
        counts.add("yes")
        counts.add(str(rng.random()))
    counts.add("yes")
    kept = counts.to_dict()
    assert len(kept["values"]) == 10 and kept["values"]["yes"] == 5001
    assert counts.n == 10001


def test_reasons_are_grouped_without_numbers_and_quotes() -> None:
    tally = Tally()
    tally.reject("answer", "the evidence 3..7 s of 'a cup' does not lie within 5.5 s", "row 1")
    tally.reject("answer", "the evidence 4..9 s of 'two cups' does not lie within 6 s", "row 2")
    ((key, (count, example)),) = tally.rejections.items()
    assert count == 2 and key[1] == kind_of("the evidence 1..2 s of 'x' does not lie within 3 s")
    assert example == "the evidence 3..7 s of 'a cup' does not lie within 5.5 s [row 1]"


def test_kinds_of_rejection_are_bounded() -> None:
    tally, rng = Tally(), random.Random(1)
    for _ in range(1000):
        tally.reject("style", "".join(rng.choices("abcdefgh", k=12)))
    assert len(tally.rejections) <= 201
    assert sum(count for count, _ in tally.rejections.values()) == 1000


def test_a_tally_of_a_part_stays_small() -> None:
    tally = Tally()
    for index in range(400):
        tally.add(laid_out(f"r{index}", split_key=f"key{index}"), count_words)
    assert len(json.dumps(tally.to_dict())) < 20_000


def test_damaged_tallies_are_named() -> None:
    values = tally_of(laid_out()).to_dict()
    with pytest.raises(InputError, match=r"part\.json.*damaged.*sums"):
        Tally.from_dict({name: value for name, value in values.items() if name != "sums"}, "part.json")
    with pytest.raises(InputError, match="version 0"):
        Tally.from_dict({**values, "version": 0})
    with pytest.raises(InputError, match="bins"):
        Tally.from_dict({**values, "histograms": {**values["histograms"], "silence_ratio": {"edges": [0]}}})
