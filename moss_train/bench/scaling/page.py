"""The page of scaling: `python -m moss_train.bench.scaling.page --results FILE...` writes docs/benchmarks/scaling.json and the
tables between the markers of scaling.md. `--check` writes nothing and says whether the tables are the file's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.bench.scaling.tables import (
    communication_table,
    exposed_phases_table,
    phases_table,
    predicted_table,
    rates_table,
    summary,
    untold,
)
from moss_train.bench.train.page import _NOT_MEASURED, _machine_lines, put, read
from moss_train.bench.train.tables import Table, good

PAGE = Path("docs/benchmarks/scaling.md")
MAKERS = {
    "steps": rates_table, "phases": phases_table, "communication": communication_table, "by_phase": exposed_phases_table,
    "predicted": predicted_table,
}  # fmt: skip
WORDS = {
    "gpus": "GPUs", "weak_pt2": "weak scaling, PT2-like", "weak_sft": "weak scaling, SFT-like",
    "strong_pt2": "strong scaling, PT2-like", "exposed_pt2": "exposed communication, PT2-like",
    "exposed_sft": "exposed communication, SFT-like", "balanced_over_own": "own frames over dealt frames, time of a step",
}  # fmt: skip
COUNTED = ("gpus", "balanced_over_own")
"""Of the summary; the others are shares."""


def merge(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Files of results in one; what a later one has of the same cases stays beside the earlier."""
    return {"summary": [summary(content) for content in contents], "runs": list(contents)}


def blocks(content: dict[str, Any]) -> dict[str, list[str]]:
    """Lines by marker of the page."""
    runs = content["runs"]
    found: dict[str, list[str]] = {"summary": _summary_lines(content["summary"]), "machine": _machine_lines(runs)}
    for name, make in MAKERS.items():
        lines: list[str] = []
        for number, run in enumerate(runs, 1):
            table: Table = make(good(run))
            if table.rows:
                caption = [f"{_call(number)}:", ""] if len(runs) > 1 else []
                lines += [*([""] if lines else []), *caption, *table.markdown()]
        found[name] = lines or [_NOT_MEASURED]
    sentences = [f"* {_call(number)}: {sentence}" for number, run in enumerate(runs, 1) for sentence in untold(run)]
    found["failed"] = sentences or ["Every case that was asked for has numbers." if runs else _NOT_MEASURED]
    return found


def _call(number: int) -> str:
    """A file of results, by its place among the commands of the page."""
    return f"Call {number}"


def _summary_lines(summaries: Sequence[dict[str, float | None]]) -> list[str]:
    """Of the calls that have something beside communication to say."""
    told = {
        number: one for number, one in enumerate(summaries, 1)
        if any(value is not None for name, value in one.items() if name != "gpus" and not name.startswith("exposed"))
    }  # fmt: skip
    if not told:
        return [_NOT_MEASURED]
    rows = []
    for name, words in WORDS.items():
        values = [one[name] for one in told.values()]
        cells = ["not measured" if v is None else f"{v:.4g}" if name in COUNTED else f"{100 * v:.1f} %" for v in values]
        rows.append((words, *cells))
    return Table("summary", ("", *map(_call, told)), rows).markdown()


def main(argv: Sequence[str] | None = None) -> int:
    """Write both, or check them."""
    parser = argparse.ArgumentParser(prog="python -m moss_train.bench.scaling.page", description=__doc__)
    parser.add_argument("--results", type=Path, nargs="*", default=[], metavar="FILE", help="of moss bench scaling --out")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page (default %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if the tables are not the file's")
    arguments = parser.parse_args(argv)
    target = arguments.page.with_suffix(".json")
    try:
        content = merge([read(path) for path in arguments.results]) if arguments.results else read(target)
        before = arguments.page.read_text(encoding="utf-8")
        after = put(before, blocks(content))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.check:
        return int(before != after)
    if arguments.results:
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    arguments.page.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
