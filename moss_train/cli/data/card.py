"""`moss data card`."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.errors import InputError

MOST = 20
"""Rows of a behaviour at most."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("build", type=Path, help="folder that `moss data generate` wrote; it need not be finished")
    parser.add_argument("--out", type=Path, help="page to write, .html (default: report.html in the folder)")
    parser.add_argument("--rows", type=int, default=2, help=f"rows of each behaviour to show, up to {MOST} (default: 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of rows (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.generator.card import write_card

    out = args.out or args.build / "report.html"
    if out.suffix not in (".html", ".htm") or out.is_dir():
        raise InputError(f"{out} is not the name of a page; give a file that ends in .html")
    if not 0 <= args.rows <= MOST:
        raise InputError(f"--rows is {args.rows}; it must lie within 0..{MOST}")
    card = write_card(args.build, out, rows_each=args.rows, seed=args.seed)
    print(f"{card.page}: {card.rows} rows, {card.shown} of them shown, {card.size / 1e6:.1f} MB; numbers in {card.numbers}")
    return 0
