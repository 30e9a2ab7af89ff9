"""`moss plan`: what a run will take, from its configuration alone. `moss plan stage=pt2 --ranks 64` is short for its report."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from moss_train.cli.actions import Action, add_actions, run_action

DEFAULT = "report"
ACTIONS = {
    DEFAULT: Action(
        "moss_train.cli.plan.report",
        "Parameters, memory by rank, operations, time, cost and what the loader owes, for one configuration",
        "moss plan stage=pt2 parallel=tp8 --ranks 64 --gpu H100",
    ),
    "layouts": Action(
        "moss_train.cli.plan.layouts",
        "The cheapest layout that fits, for every number of GPUs",
        "moss plan layouts stage=pt2 --ranks 8..4096 --gpu H100 --price 2.5",
    ),
    "measure": Action(
        "moss_train.cli.plan.measure",
        "Run some synthetic steps on this machine's GPU and hold their memory against the prediction",
        "moss plan measure stage=pt1 --pack 4096:64",
    ),
    "calibrate": Action(
        "moss_train.cli.plan.calibrate",
        "Fit the rates of predicted times to steps of moss bench train, and hold every step against its prediction",
        "moss plan calibrate training.json --write",
    ),
    "check": Action(
        "moss_train.cli.plan.check",
        "Hold steps of moss bench train or scaling against what is predicted; exit code 1 where one is off by more than a tenth",
        "moss plan check training.json scaling.json",
    ),
    "communication": Action(
        "moss_train.cli.plan.communication",
        "Bytes of every collective of a step by group and link, and how throughput grows with the number of GPUs",
        "moss plan communication stage=pt2 parallel=tp8 --ranks 8 64 512 --gpu H100",
    ),
    "balance": Action(
        "moss_train.cli.plan.balance",
        "How evenly the frames of the workload's stages are spread over many ranks",
        "moss plan balance --ranks 8 64 --stage pt2",
    ),
}


def complete(words: Sequence[str]) -> list[str]:
    """The words after `moss plan` with the action named, and overrides where they are found wherever they stood."""
    rest = list(words)
    if rest[:1] in (["-h"], ["--help"]):
        return rest
    action = rest.pop(0) if rest and rest[0] in ACTIONS else DEFAULT
    overrides = [word for word in rest if "=" in word and not word.startswith("-")]
    return [action, *overrides, *(word for word in rest if word not in overrides)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-parser for each action."""
    add_actions(parser, ACTIONS, "action")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen one."""
    return run_action(arguments, ACTIONS, "action")
