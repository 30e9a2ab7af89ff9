"""Commands with a table of actions, one module for each."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Action:
    """One sub-command; its module has `add_arguments(parser)` and `run(arguments)`."""

    module: str
    """Full name."""
    help: str
    example: str

    def load(self) -> Any:
        """The module."""
        return importlib.import_module(self.module)


def add_actions(parser: argparse.ArgumentParser, actions: Mapping[str, Action], dest: str) -> None:
    """One sub-parser for each action; the chosen name becomes the argument `dest`."""
    parsers = parser.add_subparsers(dest=dest, required=True, metavar=dest.upper())
    for name, action in actions.items():
        described = parsers.add_parser(name, help=action.help, description=f"{action.help}.", epilog=f"example: {action.example}")
        action.load().add_arguments(described)


def run_action(arguments: argparse.Namespace, actions: Mapping[str, Action], dest: str) -> int:
    """Run the chosen action."""
    status: int = actions[getattr(arguments, dest)].load().run(arguments)
    return status
