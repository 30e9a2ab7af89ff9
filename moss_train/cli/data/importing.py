"""`moss data import`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from model.errors import InputError
from moss_train.cli.data.shared import progress

if TYPE_CHECKING:
    from data_pipeline.formats.importing import ImportOptions
    from data_pipeline.formats.report import ImportReport
    from data_pipeline.formats.source import OnProgress
    from data_pipeline.shards.annotations import Annotation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the action."""
    parser.add_argument(
        "source",
        help="file or folder of rows (json, jsonl, csv, txt, parquet, arrow), a registry (dataset_info.json) with --name or "
        "--dataset-info, or a clip or folder of clips with --format subtitles",
    )
    parser.add_argument("out", help="annotation file to write, one sample a line; a folder with --dataset-info")
    parser.add_argument("--dataset-info", action="store_true", help="SOURCE is a registry; import every entry with a local file")
    parser.add_argument("--names", help="with --dataset-info: only these entries, separated by commas")
    parser.add_argument("--name", help="import this entry of the registry SOURCE")
    parser.add_argument("--format", default="auto", help="auto, sharegpt, alpaca, llava or subtitles (default: auto)")
    parser.add_argument("--language", help="with --format subtitles: only files such as CLIP.LANGUAGE.srt or .vtt")
    parser.add_argument("--media-root", help="folder of relative media paths (default: that of the rows or of the registry)")
    parser.add_argument("--template", default="mllama", help="mllama (chat) or mllama_pretrain (default: mllama)")
    parser.add_argument("--license", default="", help="licence of all samples, kept in the shards")
    parser.add_argument("--keep-missing", action="store_true", help="keep rows whose media files are not there yet")
    parser.add_argument(
        "--workers",
        type=int,
        default=min(8, len(os.sched_getaffinity(0))),
        help="media files opened at a time (default: the cores, up to 8)",
    )


def run(args: argparse.Namespace) -> int:
    """Run it."""
    from pathlib import Path

    from data_pipeline.formats.importing import ImportOptions

    _check(args)
    options = ImportOptions(
        media_root=Path(args.media_root) if args.media_root else None,
        template=args.template,
        license=args.license,
        keep_missing=args.keep_missing,
        workers=args.workers,
    )
    return _registry(args, options) if args.dataset_info else _single(args, options)


def _check(args: argparse.Namespace) -> None:
    """Refuses arguments that would have no effect."""
    if (args.names is not None and not args.dataset_info) or (args.name and args.dataset_info):
        raise InputError("--names belongs to --dataset-info, --name to a single entry of a registry; use one of the two")
    if args.names is not None and not _names(args.names):
        raise InputError(f"--names {args.names!r} names no entry; separate names by commas")
    if args.format != "auto" and (args.name or args.dataset_info):
        raise InputError(f"--format is {args.format}, but a registry tells the format of its entries; leave --format out")
    if args.language is not None and args.format != "subtitles":
        raise InputError(f"--language is {args.language}; it belongs to --format subtitles")
    if args.format == "subtitles" and (args.media_root or args.keep_missing):
        raise InputError("--media-root and --keep-missing have no effect with --format subtitles; leave them out")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _single(args: argparse.Namespace, options: ImportOptions) -> int:
    from data_pipeline.formats.report import ImportReport, write_report
    from data_pipeline.shards.annotations import write_annotations

    report = ImportReport()
    with progress("reading rows") as advance:
        write_annotations(args.out, _annotations(args, options, report, advance))
    report_path = f"{args.out}.report.json"
    write_report(report_path, report.to_dict())
    print(f"{report.kept} of {report.rows} rows kept in {args.out}")
    _print_dropped(report)
    if report.dropped:
        print(f"  details in {report_path}")
    return 0


def _annotations(
    args: argparse.Namespace, options: ImportOptions, report: ImportReport, on_progress: OnProgress
) -> Iterator[Annotation]:
    from data_pipeline.formats.registry import registry_source
    from data_pipeline.formats.source import import_source, source_of
    from data_pipeline.formats.subtitle_clips import import_subtitles

    if args.format == "subtitles":
        return import_subtitles(args.source, options, report, args.language, on_progress)
    source = registry_source(args.source, args.name) if args.name else source_of(args.source, args.format)
    return import_source(source, options, report, on_progress)


def _registry(args: argparse.Namespace, options: ImportOptions) -> int:
    from data_pipeline.formats.registry import REPORT, file_name, import_registry

    names = _names(args.names) if args.names is not None else None
    with progress("reading rows") as advance:
        report = import_registry(args.source, args.out, options, names, lambda name: advance)
    for name, reason in report.skipped.items():
        print(f"{name}: skipped: {reason}")
    for name, rows in report.imported.items():
        print(f"{name}: {rows.kept} of {rows.rows} rows kept in {args.out}/{file_name(name)}")
        _print_dropped(rows)
    for name, reason in report.failed.items():
        print(f"{name}: failed: {reason}")
    print(f"{len(report.imported)} entries imported, {len(report.failed)} failed, {len(report.skipped)} skipped")
    print(f"  details in {args.out}/{REPORT}")
    return 0


def _print_dropped(report: ImportReport) -> None:
    for reason, count in report.dropped.most_common():
        print(f"  dropped {count}: {reason}, such as {report.examples[reason][0]}")
