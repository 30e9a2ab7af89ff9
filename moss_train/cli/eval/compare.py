"""`moss eval compare`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""


def run(arguments: argparse.Namespace) -> int:
    """Being written."""
    raise NotImplementedError
