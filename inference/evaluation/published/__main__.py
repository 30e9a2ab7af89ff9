"""`python -m inference.evaluation.published`: the published table's tasks, or results of lmms-eval beside its figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from inference.commands import run_command
from inference.evaluation.published.beside import beside, read_results, text_table
from inference.evaluation.published.table import REFERENCE, TASKS, load_table


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = argparse.ArgumentParser(
        prog="published",
        description="Without arguments: the table of published figures. With files: what lmms-eval found beside it.",
        epilog='example: lmms-eval --tasks moss_published --include_path "$(python -m inference.evaluation.published --folder)"',
    )
    parser.add_argument("results", nargs="*", type=Path, help="*_results.json that lmms-eval wrote; later ones go before earlier")
    parser.add_argument("--table", type=Path, default=REFERENCE, help="table of figures (default: that of MOSS-Video-Preview)")
    parser.add_argument("--tasks", action="store_true", help="print the task ids for lmms-eval's --tasks, and nothing else")
    parser.add_argument("--folder", action="store_true", help="print the folder for lmms-eval's --include_path, and nothing else")
    parser.add_argument("--label", default="ours", help="what the column of the results is called (default ours)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""

    def run(args: argparse.Namespace) -> int:
        table = load_table(args.table)
        if args.folder:
            print(TASKS)
        elif args.tasks:
            print(",".join(table.tasks))
        else:
            rows = beside(table, [read_results(path) for path in args.results])
            print(text_table(table, rows, args.label), end="")
        return 0

    return run_command(build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
