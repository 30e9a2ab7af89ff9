"""`moss data`: one file for each action."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Action:
    """One sub-command; its module has `add_arguments(parser)` and `run(args)`."""

    module: str
    help: str
    example: str


ACTIONS = {
    "import": Action(
        "importing",
        "Turn share-GPT, Alpaca or LLaVA rows, a registry, or clips with subtitles into annotation files",
        "moss data import --dataset-info dataset_info.json annotations",
    ),
    "prepare": Action("prepare", "Write the shards of an annotation file", "moss data prepare sft.jsonl shards/sft"),
    "info": Action("info", "Describe a folder of shards", "moss data info shards/sft --check"),
    "lint": Action("lint", "Find what is wrong with samples and media", "moss data lint shards/sft --stage sft_offline --decode"),
    "preview": Action("preview", "Write a page of samples as the model will see them", "moss data preview shards/sft page.html"),
    "plan": Action("plan", "Predict padding, balance and what the loader owes", "moss data plan stage=pt2 --workload --ranks 64"),
    "tokenizer": Action("tokenizer", "Train a small tokenizer, or build Llama 3's", "moss data tokenizer t.json shards/sft"),
    "world": Action("world", "Render the synthetic video world", "moss data world shards/world --split train"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-parser for each action."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, action in ACTIONS.items():
        described = actions.add_parser(name, help=action.help, description=f"{action.help}.", epilog=f"example: {action.example}")
        _module(action).add_arguments(described)


def run(args: argparse.Namespace) -> int:
    """Run the chosen action."""
    status: int = _module(ACTIONS[args.action]).run(args)
    return status


def _module(action: Action) -> Any:
    return importlib.import_module(f"moss_train.cli.data.{action.module}")
