"""Tables of the documentation that come from plans."""

from __future__ import annotations

import pytest

from moss_train.planning.communication.tables import GROWTH, SENT, sent
from moss_train.planning.pages import DOCS, main, recipes_page, replaced, scaling_page


def test_a_table_is_written_in_place() -> None:
    page = "before\n\n| a |\n| --- |\n| 1 |\n| 2 |\n\nafter\n"
    assert replaced(page, ["| a |", "| --- |", "| 3 |"]) == "before\n\n| a |\n| --- |\n| 3 |\n\nafter\n"
    with pytest.raises(ValueError, match="has 0 tables"):
        replaced(page, ["| b |"])


def test_the_recipes_page_is_what_the_command_writes() -> None:
    page = (DOCS / "recipes.md").read_text(encoding="utf-8")
    assert recipes_page(page) == page


def test_the_scaling_page_is_what_the_command_writes() -> None:
    page = (DOCS / "scaling.md").read_text(encoding="utf-8")
    assert SENT[0] in page and GROWTH[0] in page
    assert scaling_page(page) == page


def test_every_call_has_a_column() -> None:
    """A row's cells add up to what the busiest rank sends: nothing is left out but what it receives."""
    row = next(line for line in sent() if "`pt2_11b_64`" in line)
    cells = [float(cell) for cell in row.split("|")[4:11] if cell.strip() != "-"]
    assert sum(cells) == pytest.approx(30.50 + 0.13 + 13.75 + 5.29 + 1.99, abs=0.05)


def test_help_is_printed_and_writes_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    written = (DOCS / "recipes.md").stat().st_mtime_ns
    monkeypatch.setattr("sys.argv", ["pages", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert "usage: moss_train.planning.pages" in capsys.readouterr().out
    assert (DOCS / "recipes.md").stat().st_mtime_ns == written
