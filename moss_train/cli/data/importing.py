"""`moss data import`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument("source", help="JSON list of rows, or a registry (dataset_info.json) together with --name")
    parser.add_argument("out", help="annotation file to write, one sample a line")
    parser.add_argument("--name", help="entry of the registry")
    parser.add_argument("--media-root", help="folder of relative media paths (default: the folder of the JSON file)")
    parser.add_argument("--template", default="mllama", help="mllama (chat) or mllama_pretrain (default: mllama)")
    parser.add_argument("--license", default="", help="licence of all samples, kept in the shards")
    parser.add_argument("--keep-missing", action="store_true", help="keep rows whose media files are not there yet")


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from data_pipeline.shards.annotations import write_annotations
    from data_pipeline.shards.sharegpt import import_sharegpt
    from data_pipeline.text.template import check_template

    check_template(args.template)
    annotations, report = import_sharegpt(
        args.source,
        name=args.name,
        media_root=args.media_root,
        template=args.template,
        license=args.license,
        keep_missing=args.keep_missing,
    )
    write_annotations(args.out, annotations)
    report_path = Path(f"{args.out}.report.json")
    temporary = report_path.with_name(f".{report_path.name}.tmp")
    temporary.write_text(json.dumps(report.to_dict(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    temporary.replace(report_path)
    print(f"{report.kept} of {report.rows} rows kept in {args.out}")
    for reason, count in report.dropped.most_common():
        print(f"  dropped {count}: {reason}, such as {report.examples[reason][0]}")
    if report.dropped:
        print(f"  details in {report_path}")
    return 0
