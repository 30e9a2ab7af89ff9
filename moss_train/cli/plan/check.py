"""`moss plan check`: steps that were measured beside what is predicted of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.cli.plan.shared import wide_console

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from moss_train.planning.calibration.compare import Compared, Pair
    from moss_train.planning.calibration.results import Results
    from moss_train.planning.rates import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    add_result_arguments(parser, "what moss bench train --out or moss bench scaling --out has written")


def add_result_arguments(parser: argparse.ArgumentParser, files: str) -> None:
    """What `check` and `calibrate` both take.

    Args:
        files: the help of the files.
    """
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS.json", help=files)
    parser.add_argument("--gpu", help="A100 | H100 | H200 (default: the card that the results are of)")
    parser.add_argument("--rates", type=Path, metavar="FILE", help="table of rates (default: the one that moss plan uses)")
    parser.add_argument("--within", type=float, default=10.0, metavar="PERCENT", help="error that is allowed (default: 10)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write JSON with the tables of a page to this file")


def run(args: argparse.Namespace) -> int:
    """Print every case; 1 where an error is larger than allowed.

    Raises:
        InputError: files that cannot be read, or of a card that the table does not have.
    """
    from moss_train import platform

    platform.install()
    from moss_train.bench.scaling.checked import compare_run, joined, split
    from moss_train.planning.calibration.compare import compare
    from moss_train.planning.calibration.results import read_results
    from moss_train.planning.flops import PEAK

    plain, runs = split(args.results)
    results = joined(read_results(plain) if plain else None, runs)
    gpu = gpu_of_results(args, results)
    row = rows_of(args)[gpu]
    compared = [compare(case, PEAK[gpu], row) for case in results.cases]
    compared += [case for run in runs for case in compare_run(run, PEAK[gpu], row)]
    if not compared:
        raise InputError(f"{', '.join(map(str, args.results))} holds no measured case whose frames are dealt; give others")
    write_page(args.out, gpu, results, compared)
    if args.json:
        print(json.dumps({"gpu": gpu, "measured": row.measured, "cases": [case.to_dict() for case in compared]}, indent=1))
    else:
        print_compared(compared, f"{gpu}, rates of {row.source}")
    return exit_code(compared, args.within, quiet=args.json)


def gpu_of_results(args: argparse.Namespace, results: Results) -> str:
    """The card of the results, or the one that was named.

    Raises:
        InputError: it is not in the tables, or the allowed error is no share.
    """
    from moss_train.planning.flops import PEAK

    if not 0 < args.within < 100:
        raise InputError(f"--within is {args.within:g}; it is a percentage above 0 and below 100")
    name = (args.gpu or results.gpu or "").upper()
    if name not in PEAK:
        told = f"--gpu is {args.gpu!r}" if args.gpu else f"the results are of {results.device!r}, which the plan does not know"
        raise InputError(f"{told}; use --gpu {' | '.join(sorted(PEAK))}")
    return name


def rows_of(args: argparse.Namespace) -> dict[str, Row]:
    """The table of rates.

    Raises:
        InputError: it cannot be read, or misses a card.
    """
    from moss_train.planning.flops import PEAK
    from moss_train.planning.rates import TABLE, read_table

    path = args.rates or TABLE
    rows = read_table(path)
    if missing := sorted(set(PEAK) - set(rows)):
        raise InputError(f"the table of rates {path} has no {', '.join(missing)}; give one that has all cards")
    return rows


def print_compared(cases: Sequence[Compared], title: str, used: Sequence[str] = ()) -> None:
    """The table: predicted milliseconds and GB, and the error of each.

    Args:
        used: names of cases that rates were fitted to; they are marked.
    """
    from rich.table import Table

    from moss_train.planning.calibration.results import PHASES

    table = Table(title=title, title_justify="left", title_style="bold")
    for column in ("case", *PHASES, "step, ms", "memory, GB"):
        table.add_column(column, justify="left" if column == "case" else "right")
    for case in cases:
        cells = [_cell(case.phases.get(phase), 1e3) for phase in PHASES]
        name = f"{case.name} *" if case.name in used else case.name
        table.add_row(name, *cells, _cell(case.step, 1e3), _cell(case.memory, 1e-9))
    console = wide_console()
    console.print(table)
    if used:
        console.print("* fitted to; the other cases played no part")


def write_page(
    path: Path | None,
    gpu: str,
    results: Results,
    cases: Sequence[Compared],
    rates: dict[str, Any] | None = None,
    used: Sequence[str] = (),
) -> None:
    """Write the comparison as tables of words, which pages of measurements print.

    Args:
        path: of the JSON file; None writes nothing.
        rates: a table of rates in front.
        used: names of cases that rates were fitted to.
    """
    if path is None:
        return
    import shlex
    import sys

    from moss_train.checkpoint.description import write_atomically
    from moss_train.planning.calibration.results import PHASES

    rows = [
        [
            case.name + (" *" if case.name in used else ""), *(_cell(case.phases.get(phase), 1e3) for phase in PHASES),
            _cell(case.step, 1e3), _cell(case.memory, 1e-9),
        ]
        for case in cases
    ]  # fmt: skip
    header = ["case", *(f"{phase}, ms" for phase in PHASES), "step, ms", "memory, GB"]
    title = f"Predicted for an {gpu}, and by how much that is off" + (" (*: rates were fitted to it)" if used else "")
    tables = [] if rates is None else [rates]
    content = {
        "command": "moss " + shlex.join(sys.argv[1:]), "date": results.date, "hardware": {"device": results.device},
        "versions": results.versions, "summary": {}, "tables": [*tables, {"title": title, "header": header, "rows": rows}],
        "cases": [case.to_dict() for case in cases],
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def _cell(pair: Pair | None, unit: float) -> str:
    return "-" if pair is None else f"{pair.predicted * unit:.1f} ({pair.error:+.1%})"


def exit_code(cases: Sequence[Compared], within: float, quiet: bool = False) -> int:
    """0 where every case is predicted as exactly as is allowed, else 1; says how it is."""
    far = [case for case in cases if case.worst() > within / 100]
    if not quiet:
        worst = max(cases, key=lambda case: case.worst())
        told = f"largest error {worst.worst():.1%} ({worst.name})"
        print(f"{len(cases) - len(far)} of {len(cases)} cases within {within:g} %; {told}")
    return 1 if far else 0
