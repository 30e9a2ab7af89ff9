"""`moss data`: one file for each action."""

from __future__ import annotations

import argparse

from moss_train.cli.actions import Action, add_actions, run_action

ACTIONS = {
    "import": Action(
        "moss_train.cli.data.importing",
        "Turn share-GPT, Alpaca or LLaVA rows, a registry, or clips with subtitles into annotation files",
        "moss data import --dataset-info dataset_info.json annotations",
    ),
    "timeline": Action(
        "moss_train.cli.data.timeline",
        "Turn captions, subtitles, events or questions about videos into timelines",
        "moss data timeline captions.json timelines.jsonl --kind captions --media-root videos",
    ),
    "prepare": Action(
        "moss_train.cli.data.prepare", "Write the shards of an annotation file", "moss data prepare sft.jsonl shards/sft"
    ),
    "info": Action("moss_train.cli.data.info", "Describe a folder of shards", "moss data info shards/sft --check"),
    "lint": Action(
        "moss_train.cli.data.lint",
        "Find what is wrong with samples and media",
        "moss data lint shards/sft --stage sft_offline --decode",
    ),
    "preview": Action(
        "moss_train.cli.data.preview",
        "Write a page of samples as the model will see them",
        "moss data preview shards/sft page.html",
    ),
    "card": Action(
        "moss_train.cli.data.card",
        "Write the report card of a generated corpus: what it holds, what was rejected, rows in time",
        "moss data card corpora/world --out card.html",
    ),
    "plan": Action(
        "moss_train.cli.data.plan",
        "Predict padding, balance and what the loader owes",
        "moss data plan stage=pt2 --workload --ranks 64",
    ),
    "cache": Action(
        "moss_train.cli.data.cache",
        "Copy the shards that this node reads to its own disk, before training",
        "moss data cache --config runs/pt2/launch/config.yaml",
    ),
    "tokenizer": Action(
        "moss_train.cli.data.tokenizer", "Train a small tokenizer, or build Llama 3's", "moss data tokenizer t.json shards/sft"
    ),
    "world": Action(
        "moss_train.cli.data.world", "Render the synthetic video world", "moss data world shards/world --split train"
    ),
    "generate": Action(
        "moss_train.cli.data.generate",
        "Write a corpus of real-time dialogues from the world, from annotations or from videos",
        "moss data generate corpus --config world rows.train=10000",
    ),
    "world-gallery": Action(
        "moss_train.cli.data.world_gallery",
        "Write a page of stories of the world, with their truth beneath the frames",
        "moss data world-gallery stories.html --level 3",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-parser for each action."""
    add_actions(parser, ACTIONS, "action")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen one."""
    return run_action(arguments, ACTIONS, "action")
