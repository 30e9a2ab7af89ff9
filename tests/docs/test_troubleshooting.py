"""docs/troubleshooting.md quotes what the programs say: every clause of a quoted sentence stands in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pages import blocks
from tests.ranks import REPOSITORY

PAGE = REPOSITORY / "docs" / "troubleshooting.md"
OPENINGS = re.compile(r"moss: (error: |warning: |preflight: )?|warning: ")
"""What `moss` and its checks put in front of a sentence."""
LEAST_WORDS = 2
VARIES = "‹›"


def _texts_of(tree: ast.AST) -> Iterator[str]:
    """The strings of a program, pieces of one joined, with a sign for what is filled in."""
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else VARIES for part in node.values)


@pytest.fixture(scope="module")
def source() -> str:
    """All that our programs can say, a string a line."""
    said: list[str] = []
    for package in ("model", "data_pipeline", "inference", "moss_train"):
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            said += _texts_of(ast.parse(path.read_text(encoding="utf-8")))
    scripts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "launch").rglob("*.sh")]
    return "\n".join(said + scripts)


def _clauses(sentence: str) -> list[str]:
    """The fixed parts of a quoted sentence; ‹...› is what differs from run to run."""
    fixed = re.sub(r"‹[^›]*›", "\n", OPENINGS.sub("", sentence, count=1))
    parts = (part.strip(" ,.()") for part in re.split(r"\n|[;:] ", fixed))
    return [part for part in parts if part]


def quoted(page: Path = PAGE) -> list[str]:
    """One sentence a line."""
    return [line for block in blocks(page, "text") for line in block.splitlines()]


def test_what_is_quoted_is_said_by_the_programs(source: str) -> None:
    missing = [(clause, line) for line in quoted() for clause in _clauses(line) if clause not in source]
    assert not missing


def test_quotes_are_more_than_placeholders() -> None:
    """A sentence of variable parts alone would be found in any source."""
    weak = [line for line in quoted() if sum(len(clause.split()) for clause in _clauses(line)) < LEAST_WORDS]
    assert len(quoted()) > 30 and not weak


def test_a_sentence_that_nobody_says_is_noticed(source: str) -> None:
    made_up = _clauses("moss: error: rank ‹3› has no more patience; give it a rest")
    assert made_up == ["rank", "has no more patience", "give it a rest"]
    assert [part in source for part in made_up] == [True, False, False]
