"""Thoughts and answer told apart, however the text is cut into pieces."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.thinking import AnswerOnly

PARTS = ["<thinking>", "</thinking>", "<answer>", "</answer>", "red", " ball", "\n", "<", ">", "</", "a < b", "<think"]


def _shown(pieces: list[str]) -> str:
    shown: list[str] = []
    filtered = AnswerOnly(shown.append)
    for piece in pieces:
        filtered(piece)
    filtered.close()
    return "".join(shown)


def _expected(text: str) -> str:
    """The same by the whole text: thoughts run from their tag to the next tag of any other kind, or to the end."""
    found, thinking = "", False
    for part in re.split(r"(</?thinking>|</?answer>)", text):
        if re.fullmatch(r"</?thinking>|</?answer>", part):
            thinking = part == "<thinking>"
        elif not thinking:
            found += part
    return found.lstrip()


@given(parts=st.lists(st.sampled_from(PARTS), max_size=12), cuts=st.lists(st.integers(1, 5), min_size=1, max_size=9))
def test_any_cutting_shows_the_same(parts: list[str], cuts: list[int]) -> None:
    text = "".join(parts)
    pieces, place, turn = [], 0, 0
    while place < len(text):
        pieces.append(text[place : place + cuts[turn % len(cuts)]])
        place += len(pieces[-1])
        turn += 1
    assert _shown(pieces) == _expected(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("<thinking>it is red</thinking>\n\n<answer>red</answer>", "red"),
        ("no tags at all", "no tags at all"),
        ("<thinking>never ends", ""),
        ("<answer>1 < 2</answer>", "1 < 2"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert _shown(list(text)) == shown
