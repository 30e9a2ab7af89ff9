"""`moss data info`."""

from __future__ import annotations

import argparse
import json

from model.errors import InputError
from moss_train.cli.data.shared import one_line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("folder", help="folder of shards")
    parser.add_argument("--check", action="store_true", help="compare every shard with the digest noted when it was written")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print the first N samples")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.shards.info import check_shards, read_samples, read_summary
    from data_pipeline.shards.schema import sample_to_dict

    summary = read_summary(args.folder)
    print(f"{args.folder}: {one_line(summary)}")
    for field in ("kinds", "media", "licenses", "sources"):
        print(f"  {field}: " + ", ".join(f"{name or '(none)'} {count}" for name, count in summary[field].items()))
    if args.show > 0:
        for number, (key, sample) in enumerate(read_samples(args.folder)):
            if number >= args.show:
                break
            print(f"  {key}: " + json.dumps(sample_to_dict(sample), ensure_ascii=False))
    if args.check:
        faults = check_shards(args.folder)
        if faults:
            raise InputError(f"{'; '.join(faults)}; write the folder again with `moss data prepare --overwrite`")
        print(f"  all {len(summary['shards'])} shards are as written")
    return 0
