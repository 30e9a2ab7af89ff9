"""The benchmark's page: files of results into one, its summary, and the tables between the page's markers.

`python -m moss_train.bench.train.page --train train.json profile.json --full full.json --reference reference.json
--convergence fp8.json --plan check.json` writes docs/benchmarks/training-h200.json and the tables of training-h200.md. What was
not measured is null in the summary and a sentence in the page. `--merge` changes only the kinds of which there are files.
`--check` writes nothing and says whether both are as the files make them.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.bench.train.tables import (
    Table,
    chip_table,
    good,
    kernels_table,
    kinds_table,
    number,
    parts_table,
    phases_table,
    rates_table,
    untold,
)

PAGE = Path("docs/benchmarks/training-h200.md")
KINDS = ("train", "full", "reference", "convergence", "plan")
"""Kinds of files, by what wrote them."""
SUMMARY = (
    "decoder_tflops_bf16", "decoder_tflops_fp8", "vision_forward_tflops", "step64_tflops_bf16", "step64_tflops_fp8",
    "full11b_tflops", "full11b_peak_gib", "ratio_64_bf16", "ratio_64_fp8", "ratio_256_bf16", "ratio_mixture",
)  # fmt: skip
STEP: dict[str, Any] = {"stage": "pt2", "frame_count": 64, "rows": 4096}
"""The step that the summary speaks of; one with an optimizer goes before one without."""


def read(path: Path) -> dict[str, Any]:
    """A file of results.

    Raises:
        InputError: there is none, or it holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give a file that `moss bench train --out` has written") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as JSON ({error}); give a file that `moss bench train --out` has written"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no results; give a file that `moss bench train --out` has written")
    return content


def merge(files: dict[str, Sequence[Path]], before: dict[str, Any] | None = None) -> dict[str, Any]:
    """All files in one, by kind, with the summary on top.

    Args:
        before: results of earlier files: what they have of a kind stays where no file of it is given.

    Raises:
        InputError: a file that cannot be read.
    """
    earlier = before or {}
    runs = {kind: [read(path) for path in files.get(kind, ())] or earlier.get(kind, []) for kind in KINDS}
    return {"summary": summary(runs), **runs}


def summary(runs: dict[str, list[dict[str, Any]]]) -> dict[str, float | None]:
    """Its values; None for what was not measured."""
    found: dict[str, float | None] = dict.fromkeys(SUMMARY)
    for precision in ("bf16", "fp8"):
        case = _step_case(runs["train"], precision)
        if case is not None:
            found[f"step64_tflops_{precision}"] = case["tflops"]["model"]
            if precision == "bf16":
                found["vision_forward_tflops"] = case["tflops"]["vision_forward"]
        decoder = _decoder_rates(runs["train"], precision)
        found[f"decoder_tflops_{precision}"] = max(decoder, default=None)
    whole = [content for content in runs["full"] if content.get("summary", {}).get("full11b_tflops") is not None]
    # Of the runs of the whole model the fastest speaks: those beside it save, or repeat themselves bit for bit.
    for contents in (sorted(whole, key=lambda content: float(content["summary"]["full11b_tflops"])), runs["reference"]):
        for content in contents:
            told = content.get("summary", {})
            found |= {name: told[name] for name in SUMMARY if told.get(name) is not None}
    return {name: None if value is None else round(float(value), 3) for name, value in found.items()}


def _step_case(contents: Sequence[dict[str, Any]], precision: str) -> dict[str, Any] | None:
    """The newest case of `STEP`, with an optimizer if there is one."""
    wanted = {**STEP, "precision": precision}
    cases = [case for content in contents for case in good(content) if all(case.get(k) == v for k, v in wanted.items())]
    plain = [case for case in cases if case.get("data") == "synthetic" and case["micro_batches"] == 1]
    ranked = sorted(plain, key=lambda case: case["optimizer"] != "none")  # stable: the newest last
    return ranked[-1] if ranked else None


def _decoder_rates(contents: Sequence[dict[str, Any]], precision: str) -> list[float]:
    """Of the decode phase of all synthetic cases of the stage with as many frames as `STEP` or fewer."""
    return [
        case["tflops"]["decoder"]
        for content in contents
        for case in good(content)
        if case["precision"] == precision and case["stage"] == STEP["stage"] and case["frame_count"] <= STEP["frame_count"]
        and case.get("data") == "synthetic" and case["tflops"]["decoder"] is not None
    ]  # fmt: skip


def blocks(content: dict[str, Any]) -> dict[str, list[str]]:
    """Lines by marker of the page."""
    train = content["train"]
    cases = [case for one in train for case in good(one)]
    profiled = [case for case in cases if "profile" in case]
    real = [case for case in cases if case["data"] != "synthetic"]
    found = {
        "summary": _summary_lines(content["summary"]),
        "machine": _machine_lines([one for kind in KINDS for one in content[kind]]),
        "chip": _table_lines(chip_table(train[0]["chip"]) if train and "chip" in train[0] else None),
        "rates": _table_lines(rates_table(cases) if cases else None),
        "phases": _table_lines(phases_table(cases) if cases else None),
        "parts": _table_lines(parts_table(cases) if cases else None),
        "data": _table_lines(phases_table(real) if real else None),
        "kinds": _table_lines(kinds_table(profiled) if profiled else None),
        "kernels": [line for case in profiled for line in ("", f"{case['name']}:", "", *kernels_table(case).markdown())][1:]
        or [_NOT_MEASURED],
        "failed": [f"* {sentence}" for one in train for sentence in untold(one)]
        or ["Every case that was asked for has numbers."],
    }
    for kind in ("full", "reference", "convergence", "plan"):
        found[kind] = [line for one in content[kind] for line in (*_own_tables(one), "")][:-1] or [_NOT_MEASURED]
    return found


_NOT_MEASURED = "Not measured."


def _table_lines(table: Table | None) -> list[str]:
    return [_NOT_MEASURED] if table is None or not table.rows else table.markdown()


def _summary_lines(values: dict[str, float | None]) -> list[str]:
    rows = [
        (f"`{name}`", "not measured" if value is None else number(value, 2 if value < 10 else 1))
        for name, value in values.items()
    ]
    return Table("summary", ("", "value"), rows).markdown()


def _machine_lines(contents: Sequence[dict[str, Any]]) -> list[str]:
    """Hardware and versions, each once, and every command."""
    lines: list[str] = []
    for content in contents:
        if "hardware" not in content:
            continue
        hardware, versions = content["hardware"], content.get("versions", {})
        told = ", ".join(f"{name} {value}" for name, value in versions.items())
        line = f"{hardware['device']}, {told}, {content.get('date', 'no date')}."
        if line not in lines:
            lines += ["", line] if lines else [line]
    commands = [str(content["command"]) for content in contents if "command" in content]
    return [*lines, "", "```", *dict.fromkeys(commands), "```"] if commands else lines or [_NOT_MEASURED]


def _own_tables(content: dict[str, Any]) -> list[str]:
    """The tables that a file of another kind brings: `tables`, a list of {title, header, rows} of words."""
    lines: list[str] = []
    for entry in content.get("tables", []):
        table = Table(str(entry["title"]), tuple(map(str, entry["header"])), [tuple(map(str, row)) for row in entry["rows"]])
        lines += [f"{table.title}:", "", *table.markdown(), ""]
    return lines[:-1]


def put(page: str, lines_by_name: dict[str, list[str]]) -> str:
    """The page with the lines between `<!-- table: NAME -->` and `<!-- end -->` made anew.

    Raises:
        InputError: a marker that nothing is known of.
    """

    def replace(match: re.Match[str]) -> str:
        name = match[1]
        if name not in lines_by_name:
            raise InputError(f"the page has the marker {name!r}; use one of {', '.join(lines_by_name)}")
        return "\n".join([f"<!-- table: {name} -->", "", *lines_by_name[name], "", "<!-- end -->"])

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", replace, page, flags=re.DOTALL)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m moss_train.bench.train.page", description=__doc__)
    for kind in KINDS:
        parser.add_argument(f"--{kind}", type=Path, nargs="*", default=[], metavar="FILE", help=f"results of this kind, {kind}")
    parser.add_argument(
        "--page", type=Path, default=PAGE, help="the page; the file of all results is beside it (default %(default)s)"
    )
    parser.add_argument(
        "--tables", action="store_true", help="make the page's tables anew from the file beside it, and read no others"
    )
    parser.add_argument(
        "--merge", action="store_true", help="leave kinds of which no file is given as the file beside the page has them"
    )
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if the tables are not the file's")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Write both, or check them."""
    arguments = _arguments(argv)
    target = arguments.page.with_suffix(".json")
    try:
        kept = arguments.tables or arguments.check
        files = {kind: getattr(arguments, kind) for kind in KINDS}
        content = read(target) if kept else merge(files, read(target) if arguments.merge else None)
        before = arguments.page.read_text(encoding="utf-8")
        after = put(before, blocks(content))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if arguments.check:
        return int(before != after)
    if not kept:
        target.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    arguments.page.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
