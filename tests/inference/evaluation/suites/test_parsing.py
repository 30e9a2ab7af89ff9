"""Strict readings of replies: what counts as an answer, and what does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.evaluation.suites.parsing import LETTERS, bare, lettered, strict_choice, strict_number, strict_yes_no

OPTIONS = ["A cat", "A dog", "Two birds", "None of them"]


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        (" b. ", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B. A dog", "B"),
        ("(C) Two birds", "C"),
        ("A\nbecause it purrs", "A"),
        ("The answer is C.", "C"),
        ("answer: (D)", "D"),
        ("a dog.", "B"),
        ("C. Two birds", "C"),
        ("A cat sits there", None),  # an article
        ("The answer is a cat", None),
        ("E", None),  # no such option
        ("The answer is A or B", None),
        *[(reply, None) for reply in ("A, B", "A. or B.", "A) B)", "(A) (B)", "A: no. B: yes", "A\nB", "Answer: A, B")],
        ("**B.** A dog", "B"),
        ("B. A dog and A cat", "B"),
        ("I see several animals", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("options", [OPTIONS, lettered(OPTIONS)], ids=["bare", "lettered"])
def test_choice(reply: str, letter: str | None, options: list[str]) -> None:
    assert strict_choice(reply, options) == letter


@given(st.integers(0, 3), st.sampled_from(["{}", "({})", "{}.", "{}: {text}", "Answer: {}", "The best option is {}."]))
def test_every_way_of_naming_a_letter_is_read(place: int, form: str) -> None:
    assert strict_choice(form.format(LETTERS[place], text=OPTIONS[place]), OPTIONS) == LETTERS[place]


def test_two_options_of_the_same_text_cannot_be_told_apart() -> None:
    assert strict_choice("same", ["same", "same", "other"]) is None and strict_choice("other", ["same", "same", "other"]) == "C"


def test_letters_are_put_before_options_once() -> None:
    assert lettered(["x", "y"]) == ["A. x", "B. y"] == lettered(lettered(["x", "y"]))
    assert [bare(option) for option in lettered(OPTIONS)] == OPTIONS


@pytest.mark.parametrize(
    ("reply", "says"),
    [("Yes, now.", True), ("no", False), (" N", False), ("y", True), ("Not yet", None), ("I say yes", None), ("", None)],
)
def test_yes_or_no(reply: str, says: bool | None) -> None:
    assert strict_yes_no(reply) is says


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("3", 3),
        ("They did it 3 times.", 3),
        ("three", 3),
        ("12 times (12)", 12),
        ("one of the 3", 3),
        ("3 of 4", None),
        ("1.5", None),
        ("often", None),
        ("", None),
    ],
)
def test_number(reply: str, number: int | None) -> None:
    assert strict_number(reply) == number
