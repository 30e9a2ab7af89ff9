"""`moss wandb`: its table of actions."""

from __future__ import annotations

import argparse

from moss_train.cli.actions import Action, add_actions, run_action

ACTIONS = {
    "dashboard": Action(
        "moss_train.cli.wandb_dashboard",
        "Make a workspace with a chart for everything that a run has recorded",
        "moss wandb dashboard runs/pt2 --entity my-team",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-parser for each action."""
    add_actions(parser, ACTIONS, "action")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen one."""
    return run_action(arguments, ACTIONS, "action")
