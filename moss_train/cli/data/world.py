"""`moss data world`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    from data_pipeline.world import cli

    cli.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.world import cli

    return cli.run(args)
