"""Every suite is what its name says, and the page on benchmarks has each that is imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.evaluation.schema import MODES
from inference.evaluation.suites.registry import EVERYWHERE, MODULES, get_suite
from model.errors import InputError

PAGE = Path(__file__).resolve().parents[4] / "docs" / "evaluation-benchmarks.md"


@pytest.mark.parametrize("name", MODULES)
def test_suites_are_whole(name: str) -> None:
    suite = get_suite(name)
    assert suite.name == name and suite.title and suite.about and set(suite.modes) <= set(MODES)
    assert suite.score([], None) == [] and isinstance(suite.aggregate([]), dict)
    module = __import__(MODULES[name], fromlist=["SUITE"])
    # Documented under its full name, or as a family such as `<task>.accuracy_official`.
    last = suite.main.split(".")[-1].removesuffix("_official")
    assert last in (module.__doc__ or "")


def test_names() -> None:
    assert get_suite("").name == "world" and set(EVERYWHERE) <= set(MODULES)
    with pytest.raises(InputError, match="suite 'nobody' is not known; use one of world"):
        get_suite("nobody")


def test_what_can_be_imported_is_on_the_page() -> None:
    text = PAGE.read_text(encoding="utf-8")
    missing = [suite.title for suite in map(get_suite, MODULES) if suite.load is not None and f"\n## {suite.title}" not in text]
    assert not missing
