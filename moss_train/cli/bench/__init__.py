"""`moss bench`: measures a part on this machine, prints a table and writes it with hardware, versions and command."""

from __future__ import annotations

import argparse

from moss_train.cli.actions import Action, add_actions, run_action

PARTS = {
    "checkpoint": Action(
        "moss_train.cli.bench.checkpoint",
        "How long a checkpoint blocks training, and how fast it is written and read",
        "moss bench checkpoint --work-dir /scratch/bench --out checkpoint.json",
    ),
    "convergence": Action(
        "moss_train.cli.bench.convergence",
        "Loss curves of compact against fp32 states and of fp8 against bf16, with the spread of seeds",
        "moss bench convergence --pairs states,fp8 --out convergence.json",
    ),
    "cross-attention": Action(
        "moss_train.cli.bench.cross_attention",
        "Time, memory and errors of every way from text to frames",
        "moss bench cross-attention --out cross-attention.json",
    ),
    "data": Action(
        "moss_train.cli.bench.data",
        "How fast videos become frames: decoder, loader, loader of several ranks, memory",
        "moss bench data --levels decoder,loader --work-dir bench --out data-loading.json",
    ),
    "fleet": Action(
        "moss_train.cli.bench.fleet",
        "moss train of 11B on all GPUs: rates, a checkpoint's cost, a killed rank, another layout",
        "moss bench fleet --data CLIPS --out fleet.json",
    ),
    "full": Action(
        "moss_train.cli.bench.full",
        "Training of all parameters of 11B on one GPU: memory, rates, a checkpoint saved and continued",
        "moss bench full --layers auto --save /dev/shm/full --out full.json",
    ),
    "inference": Action(
        "moss_train.cli.bench.inference",
        "Time to first token, tokens a second, many sessions, memory, against what the chip allows",
        "moss bench inference --model tiny --out inference.json",
    ),
    "latency": Action(
        "moss_train.cli.bench.latency",
        "A latency profile of this machine, whose times `moss eval --latency-profile` puts into streams elsewhere",
        "moss bench latency --model hf/realtime --out h200.latency.json",
    ),
    "reference": Action(
        "moss_train.cli.bench.reference",
        "The reference's way of training beside ours, on the same samples: frames a second, memory, ratios",
        "moss bench reference --out reference.json",
    ),
    "scaling": Action(
        "moss_train.cli.bench.scaling",
        "Training steps on several GPUs: layouts, weak and strong scaling, what communication is exposed",
        "moss bench scaling --out scaling.json",
    ),
    "train": Action(
        "moss_train.cli.bench.train",
        "Training steps at the widths of 11B on one GPU: operations a second, parts of a step, memory, kernels",
        "moss bench train --frames 8,64 --precision bf16,fp8 --out train.json",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One sub-parser for each part."""
    add_actions(parser, PARTS, "part")


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen one."""
    return run_action(arguments, PARTS, "part")
