"""`moss bench inference`."""

from __future__ import annotations

import argparse
from pathlib import Path

from inference.benchmark import command
from moss_train.cli.bench.shared import file_to_write


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to measure; the arguments of `python -m inference.benchmark` and one more."""
    command.add_arguments(parser)
    parser.add_argument("--plot", type=Path, metavar="SVG", help="also draw the time of every token into this file")


def run(arguments: argparse.Namespace) -> int:
    """Measure or read, print the tables, draw.

    Raises:
        InputError: an unknown part, size or device, a file of other results, or one that cannot be written.
    """
    file_to_write("--plot", arguments.plot)
    source: Path | None = arguments.table or arguments.out
    if arguments.plot is not None and source is None:
        from model.errors import InputError

        raise InputError("--plot draws what a file of results holds; give --out or --table as well")
    status = command.run(arguments)
    if arguments.plot is not None and source is not None:
        from inference.benchmark.results import read
        from moss_train.bench.token_times import draw
        from moss_train.checkpoint.description import write_atomically

        write_atomically(arguments.plot, draw(read(source)))
    return status
