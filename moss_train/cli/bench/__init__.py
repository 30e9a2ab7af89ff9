"""`moss bench`: measures a part on this machine, prints a table and writes it with hardware, versions and command."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """What can be measured; its module has `add_arguments(parser)` and `run(arguments)`."""

    module: str
    help: str
    example: str


PARTS = {
    "cross-attention": Part(
        "cross_attention",
        "Time, memory and errors of every way from text to frames",
        "moss bench cross-attention --out cross-attention.json",
    ),
    "data": Part(
        "data",
        "How fast videos become frames: decoder, loader, loader of several ranks, memory",
        "moss bench data --levels decoder,loader --work-dir bench --out data-loading.json",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-parser for each part."""
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    for name, part in PARTS.items():
        described = parts.add_parser(name, help=part.help, description=f"{part.help}.", epilog=f"example: {part.example}")
        _module(part).add_arguments(described)


def run(arguments: argparse.Namespace) -> int:
    """Measure the chosen part."""
    status: int = _module(PARTS[arguments.part]).run(arguments)
    return status


def _module(part: Part) -> Any:
    return importlib.import_module(f"moss_train.cli.bench.{part.module}")
