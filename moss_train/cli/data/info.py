"""`moss data info`."""

from __future__ import annotations

import argparse
import json
from typing import Any

from model.errors import InputError
from moss_train.cli.data.shared import one_line

_SPREADS = {
    "clip_seconds": "clip, seconds",
    "clip_frames": "clip, frames stored",
    "clip_bytes": "clip, bytes",
    "image_pixels": "image, pixels",
    "text_characters": "text, characters a sample",
    "media_per_sample": "media files a sample",
}
_COLUMNS = ("min", "p10", "p50", "p90", "p99", "max", "mean")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("folder", help="folder of shards")
    parser.add_argument("--check", action="store_true", help="compare every shard with the digest noted when it was written")
    parser.add_argument("--show", type=int, default=0, metavar="N", help="print the first N samples")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.shards.describe import describe_folder
    from data_pipeline.shards.info import check_shards, read_samples
    from data_pipeline.shards.schema import sample_to_dict

    summary = describe_folder(args.folder)
    if args.json:
        print(json.dumps(summary, ensure_ascii=False, indent=1))
    else:
        _print(args.folder, summary)
    if args.show > 0 and not args.json:
        for number, (key, sample) in enumerate(read_samples(args.folder)):
            if number >= args.show:
                break
            print(f"  {key}: " + json.dumps(sample_to_dict(sample), ensure_ascii=False))
    if args.check:
        faults = check_shards(args.folder)
        if faults:
            raise InputError(f"{'; '.join(faults)}; write the folder again with `moss data prepare --overwrite`")
        if not args.json:
            print(f"  all {len(summary['shards'])} shards are as written")
    return 0


def _print(folder: str, summary: dict[str, Any]) -> None:
    print(f"{folder}: {one_line(summary)}")
    if "foreign" in summary:
        _print_foreign(summary["foreign"])
    statistics = summary["statistics"]
    for field in ("kinds", "media", "licenses", "sources"):
        print(f"  {field}: " + ", ".join(f"{name or '(none)'} {count}" for name, count in summary[field].items()))
    if statistics:
        print("  shapes: " + ", ".join(f"{name} {count}" for name, count in statistics["shapes"].items()))
        print(f"  video: {statistics['hours']:.2f} hours, {statistics['frames']} frames")
    if summary.get("skipped"):
        print(f"  left out when it was written: {summary['skipped']} lines, listed in prepare_report.json")
    prepared = summary.get("prepare") or {}
    if prepared.get("transcode"):
        values = ", ".join(f"{name} {value}" for name, value in prepared["transcode"].items())
        print(f"  transcoded: {values}; " + ", ".join(f"{name} {value}" for name, value in prepared["versions"].items()))
    _print_table({**statistics, "shard_megabytes": summary["shard_megabytes"]})


def _print_foreign(foreign: dict[str, Any]) -> None:
    print("  written by another tool: it has no summary.json, so it was read; there are no digests to check")
    print("  endings: " + ", ".join(f"{name} {count}" for name, count in foreign["endings"].items()))
    if not foreign["indexed"]:
        print("  it has no index of Megatron-Energon (.nv-meta); training needs one")
    if foreign["fault"]:
        print(f"  its samples are not of this schema, so training cannot read them: {foreign['fault']}")


def _print_table(spreads: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    for name in _COLUMNS:
        table.add_column(name, justify="right")
    for name, title in {**_SPREADS, "shard_megabytes": "shard, MB"}.items():
        if values := spreads.get(name):
            table.add_row(title, *(f"{values[column]:,.6g}" for column in _COLUMNS))
    Console(width=110).print(table)
