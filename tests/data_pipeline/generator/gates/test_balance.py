"""Frequent and guessable answers: limits that hold, and rows that stay where they may."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.generator.gates.balance import Answers, over_the_limit, too_frequent

PAIR = st.tuples(st.sampled_from("ab"), st.sampled_from("wxyz"))
ROWS = st.lists(st.lists(PAIR, max_size=3), max_size=60)


def answers_of(rows: list[list[tuple[str, str]]]) -> Answers:
    answers = Answers()
    for pairs in rows:
        answers.add(pairs)
    return answers


@given(ROWS, st.floats(0.1, 0.95))
def test_no_answer_is_above_its_share_where_that_is_possible(rows: list[list[tuple[str, str]]], most: float) -> None:
    dropped = too_frequent(lambda: enumerate(rows), most)
    left = answers_of([pairs for number, pairs in enumerate(rows) if number not in dropped])
    for kind, counts in left.counts.items():
        if len(counts) * most >= 1:
            assert max(counts.values()) <= most * counts.total() + 1e-6, kind
        else:
            assert len(set(counts.values())) == 1, kind


@given(st.lists(PAIR, min_size=1, max_size=60), st.floats(0.1, 0.95))
def test_with_one_answer_a_row_no_more_are_left_out_than_needed(pairs: list[tuple[str, str]], most: float) -> None:
    rows = [[pair] for pair in pairs]
    dropped = too_frequent(lambda: enumerate(rows), most)
    left = Counter(pair for number, pair in enumerate(pairs) if number not in dropped)
    assert set(left) == set(pairs)  # no answer is gone altogether
    for (kind, text), count in left.items():
        if count < pairs.count((kind, text)):  # cut off: one more would be too many
            more = [min(c, count + 1) for k, c in Counter(pairs).items() if k[0] == kind]
            possible = len(more) * most >= 1
            assert not possible or count + 1 > most * sum(more) - 1e-6
    for number in dropped:  # the first ones stay
        assert pairs[:number].count(pairs[number]) >= left[pairs[number]]


def test_nine_of_ten_become_four_of_five() -> None:
    rows = [[("count", "one")]] * 40 + [[("count", "two")]] * 5
    assert too_frequent(lambda: enumerate(rows), 0.8) == set(range(20, 40))
    assert too_frequent(lambda: enumerate(rows), 0.9) == set()


def test_a_row_that_says_it_twice_counts_twice() -> None:
    assert over_the_limit([(0, [("k", "a"), ("k", "a")]), (7, [("k", "a")])], {("k", "a"): 2}) == [7]


def test_a_row_goes_with_its_other_answers_and_those_are_counted_anew() -> None:
    """The rows that are too many of `a` hold most answers `y`: without them `x` is too frequent."""
    rows = [[("k", "a")]] * 2 + [[("k", "a"), ("l", "y")]] * 2 + [[("k", "b"), ("l", "x")]] * 2
    dropped = too_frequent(lambda: enumerate(rows), 0.5)
    left = answers_of([r for n, r in enumerate(rows) if n not in dropped])
    assert left.counts["k"] == {"a": 2, "b": 2} and left.counts["l"] == {"x": 2}


def test_blind_is_what_the_other_rows_say() -> None:
    answers = answers_of([[("colour", "red")]] * 9 + [[("colour", "blue")], [("who", "Ann")]])
    assert answers.blind_share([("colour", "red")]) == 8 / 9
    assert answers.blind_share([("colour", "blue")]) == 0
    assert answers.blind_share([("who", "Ann")]) == 0  # nobody else was asked
    assert answers.blind_share([("colour", "red"), ("who", "Ann")]) == 4 / 9
    assert answers.blind_share([]) == 0


@given(ROWS)
def test_blind_is_a_share(rows: list[list[tuple[str, str]]]) -> None:
    answers = answers_of(rows)
    assert all(0 <= answers.blind_share(pairs) <= 1 for pairs in rows)
