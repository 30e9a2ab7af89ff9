"""`moss data prepare`."""

from __future__ import annotations

import argparse

from moss_train.cli.data.shared import one_line, progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("annotations", help="annotation file of `moss data import`")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--samples-per-shard", type=int, default=1000, help="samples in one tar (default: 1000)")
    parser.add_argument("--seed", type=int, help="shuffle the samples with this seed (default: keep their order)")
    parser.add_argument("--overwrite", action="store_true", help="replace the folder if it exists")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.shards.prepare import prepare

    with progress("writing shards") as advance:
        summary = prepare(
            args.annotations,
            args.out,
            samples_per_shard=args.samples_per_shard,
            shuffle_seed=args.seed,
            overwrite=args.overwrite,
            on_sample=advance,
        )
    print(f"{args.out}: {one_line(summary)}")
    return 0
