"""`moss eval`: run models on scenarios, score traces, compare, report. `moss eval SCENARIOS ...` is short for `moss eval run`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from moss_train.cli.actions import Action, add_actions, run_action

DEFAULT = "run"
ACTIONS = {
    DEFAULT: Action(
        "moss_train.cli.eval.running",
        "Stream and question a checkpoint on scenarios, score it, and score the baselines beside it",
        "moss eval scenarios.jsonl --checkpoint hf/realtime --out eval/realtime",
    ),
    "import": Action(
        "moss_train.cli.eval.importing",
        "Turn a benchmark's released annotations into scenarios with a manifest",
        "moss eval import ovobench ovo_bench_new.json --videos videos --out ovo/scenarios.jsonl",
    ),
    "score": Action(
        "moss_train.cli.eval.score",
        "Score traces of any system against their scenarios",
        "moss eval score traces.jsonl --scenarios ovo/scenarios.jsonl --out eval/theirs",
    ),
    "report": Action(
        "moss_train.cli.eval.report",
        "Write a page of evaluations: tables with confidence intervals, timelines, comparisons",
        "moss eval report --eval trained=eval/trained --eval untrained=eval/untrained --out report.html",
    ),
    "compare": Action(
        "moss_train.cli.eval.compare",
        "Test whether two evaluations differ, or whether the second keeps the first one's scores",
        "moss eval compare eval/sft eval/realtime --keeps offline --margin 0.01",
    ),
}


def complete(words: Sequence[str]) -> list[str]:
    """The words after `moss eval` with the action named."""
    rest = list(words)
    if not rest or rest[0] in ("-h", "--help") or rest[0] in ACTIONS:
        return rest
    return [DEFAULT, *rest]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-parser for each action."""
    add_actions(parser, ACTIONS, "action")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen one."""
    return run_action(arguments, ACTIONS, "action")
