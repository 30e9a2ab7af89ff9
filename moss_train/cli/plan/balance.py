"""`moss plan balance`: how evenly the frames of the workload's stages are spread over many ranks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moss_train.planning.balance import Balance

RANKS = (8, 64, 512)
COLUMNS = (
    "stage", "ranks", "frames a rank", "sample a rank", "pack a rank", "whole samples", "frames", "worst step",
    "in windows", "moved",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("--ranks", type=int, nargs="+", default=list(RANKS), help="numbers of ranks (default 8 64 512)")
    parser.add_argument("--stage", nargs="+", default=None, help="stages of the workload (default all four)")
    parser.add_argument("--steps", type=int, default=4, help="steps of one pack a rank (default 4)")
    parser.add_argument("--replica-ranks", type=int, default=1, help="tensor x pipeline ranks of a replica (default 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the workload (default 0)")


def run(args: argparse.Namespace) -> int:
    """Prints a table in Markdown.

    Raises:
        InputError: an unknown stage or sizes that do not fit.
    """
    from moss_train import platform

    platform.install()
    from moss_train.planning.balance import check_simulation, simulate
    from moss_train.planning.workload import STAGES

    cases = [(stage, ranks) for stage in args.stage or STAGES for ranks in args.ranks]
    for stage, ranks in cases:
        check_simulation(stage, ranks, args.steps, args.replica_ranks)
    print("| " + " | ".join(COLUMNS) + " |")
    print("|" + " --- |" * len(COLUMNS))
    for stage, ranks in cases:
        print(_row(simulate(stage, ranks, steps=args.steps, replica_ranks=args.replica_ranks, seed=args.seed)), flush=True)
    return 0


def _row(b: Balance) -> str:
    return (
        f"| {b.stage} | {b.ranks} | {b.frames:.1f} | {b.sample_a_rank:.2f} | {b.pack_a_rank:.2f} | {b.whole_samples:.2f} "
        f"| {b.by_frame:.3f} | {b.worst:.3f} | {b.in_windows:.3f} ({b.windows:.1f}) | {b.moved:.0%} |"
    )
