"""Writes the tables of the documentation that come from plans anew, in place: `python -m moss_train.planning.pages`.

docs/recipes.md (`moss_train.planning.recipes`), docs/scaling.md, its drawing and what is planned in benchmarks/communication.json
(`moss_train.planning.communication.tables`).
Sentences around them that quote a number are not touched; what changed is printed, so that they can be looked through.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def replaced(page: str, lines: Iterable[str]) -> str:
    """A page with a table written anew: the one whose heading is the first of the lines.

    Raises:
        ValueError: the page has no such table, or two.
    """
    table = list(lines)
    old = page.splitlines()
    places = [index for index, line in enumerate(old) if line == table[0]]
    if len(places) != 1:
        raise ValueError(f"the page has {len(places)} tables with the heading {table[0]!r}; it must have one")
    return "\n".join(_over(old, places[0], table)) + "\n"


def _over(page: list[str], begin: int, table: list[str]) -> list[str]:
    end = begin
    while end < len(page) and page[end].startswith("|"):
        end += 1
    return [*page[:begin], *table, *page[end:]]


def recipes_page(page: str) -> str:
    """docs/recipes.md with the tables of all stages."""
    from moss_train.planning.recipes import SAMPLES, tables

    lines = page.splitlines()
    begin = lines.index(f"### {next(iter(SAMPLES))}")
    end = next(index for index in range(begin, len(lines)) if lines[index].startswith("## "))
    written = "\n".join(tables()).rstrip().splitlines()
    return "\n".join([*lines[:begin], *written, "", *lines[end:]]) + "\n"


def scaling_page(page: str) -> str:
    """docs/scaling.md with both of its tables."""
    from moss_train.planning.communication.tables import growth, sent

    return replaced(replaced(page, sent()), growth())


def communication_file(content: str) -> str:
    """docs/benchmarks/communication.json with today's plans."""
    from moss_train.planning.communication.tables import recorded

    return recorded(json.loads(content))


def drawing() -> str:
    """The SVG of docs/scaling.md."""
    from moss_train.planning.communication.scaling import growth_plot
    from moss_train.planning.communication.tables import series

    return growth_plot(series())


def main() -> int:
    """Write all; prints the lines that are new."""
    argparse.ArgumentParser("moss_train.planning.pages", description=__doc__).parse_args()
    files: dict[Path, Callable[[str], str]] = {
        DOCS / "recipes.md": recipes_page,
        DOCS / "scaling.md": scaling_page,
        DOCS / "benchmarks" / "communication.json": communication_file,
        DOCS / "benchmarks" / "communication-scaling.svg": lambda _: drawing(),
    }
    for path, make in files.items():
        before = path.read_text(encoding="utf-8")
        after = make(before)
        path.write_text(after, encoding="utf-8")
        new = [line for line in after.splitlines() if line not in set(before.splitlines())]
        print(f"{path.name}: {len(new)} lines changed")
        print("\n".join(new) if path.suffix == ".md" else "", end="\n" if new and path.suffix == ".md" else "")
    return 0


if __name__ == "__main__":
    from moss_train import platform

    platform.install()
    sys.exit(main())
