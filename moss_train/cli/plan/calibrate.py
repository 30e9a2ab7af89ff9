"""`moss plan calibrate`: the rates that predicted times come from, fitted to steps that were measured."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from model.errors import InputError
from moss_train.cli.plan.check import add_result_arguments, exit_code, gpu_of_results, print_compared, rows_of, write_page
from moss_train.cli.plan.shared import wide_console

if TYPE_CHECKING:
    from moss_train.planning.rates import Row


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    add_result_arguments(parser, "what moss bench train --out has written")
    parser.add_argument("--write", action="store_true", help="write the fitted rates into the table")
    parser.add_argument(
        "--also", nargs="+", default=[], metavar="GPU",
        help="with --write: cards that get the same shares of their own peaks, marked as not measured",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Fit, print rates and every case; 1 where an error is larger than allowed.

    Raises:
        InputError: files that cannot be read, or cards that the table does not have.
    """
    from moss_train import platform

    platform.install()
    from moss_train.planning.calibration.compare import compare
    from moss_train.planning.calibration.fit import fit
    from moss_train.planning.calibration.results import read_results
    from moss_train.planning.flops import PEAK
    from moss_train.planning.rates import TABLE, derived, write_table

    results = read_results(args.results)
    gpu, rows = gpu_of_results(args, results), rows_of(args)
    others = [name.upper() for name in args.also]
    for name in others:
        if name not in PEAK or name == gpu:
            raise InputError(f"--also has {name}; use other cards than the {gpu}: {' '.join(sorted(set(PEAK) - {gpu}))}")
    if others and not args.write:
        raise InputError("--also names cards whose rates are written; it goes with --write")
    found = fit(results.cases, PEAK[gpu], rows[gpu], ", ".join(results.sources))
    compared = [compare(case, PEAK[gpu], found.row) for case in results.cases]
    write_page(args.out, gpu, results, compared, _rates_table(gpu, rows[gpu], found.row), found.used)
    if args.json:
        cases = [{**case.to_dict(), "fitted": case.name in found.used} for case in compared]
        print(json.dumps({"gpu": gpu, **found.row.to_dict(), "before": vars(rows[gpu].rates), "cases": cases}, indent=1))
    else:
        _print_rates(_rates_table(gpu, rows[gpu], found.row))
        print_compared(compared, f"{gpu}, {found.row.source}", found.used)
    if args.write:
        path = args.rates or TABLE
        write_table({**rows, gpu: found.row, **{name: derived(found.row, gpu) for name in others}}, path)
        if not args.json:
            print(f"written to {path}; `python -m moss_train.planning.pages` writes the tables of the documentation anew")
    return exit_code(compared, args.within, quiet=args.json)


def _rates_table(gpu: str, before: Row, after: Row) -> dict[str, Any]:
    """Rates of before and now, as words."""
    rows = []
    for name, value in vars(after.rates).items():
        old = getattr(before.rates, name)
        change = f"{value / old - 1:+.0%}" if name in after.fitted else "not determined"
        rows.append([name, f"{old:.4g}", f"{value:.4g}", change])
    return {"title": f"Rates of an {gpu}", "header": ["rate", "before", "now", "change"], "rows": rows}


def _print_rates(content: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=content["title"], title_justify="left", title_style="bold")
    for column in content["header"]:
        table.add_column(column, justify="left" if column == "rate" else "right")
    for row in content["rows"]:
        table.add_row(*row)
    wide_console().print(table)
