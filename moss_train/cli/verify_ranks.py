"""`moss verify ranks`: save, resume and reshard on real ranks, and what guards do on all of them alike."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from moss_train.cli.sigterm import raised_at_sigterm
from moss_train.verify.ranks.names import KINDS

if TYPE_CHECKING:
    from moss_train.verify.ranks.findings import CaseResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `moss verify ranks`."""
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="1, 2, 4 or 8 ranks, a GPU each (default 2)")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto (default) takes GPUs if there is one for every rank",
    )
    parser.add_argument(
        "--modules", choices=[*KINDS, "both"], default="both",
        help="torch in fp32, auto (what a run in bf16 takes here by itself), or both (default)",
    )  # fmt: skip
    parser.add_argument("--golden", type=Path, metavar="DIR", help="also replay recorded quantities, as `moss verify golden DIR`")
    parser.add_argument("--limit-seconds", type=float, metavar="S", help="begin no layout later than this (default: no limit)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every result to this file, at once")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def run(args: argparse.Namespace) -> int:
    """Runs the checks and prints the table; 0 only if all that were run passed.

    Raises:
        InputError: a number of ranks for which there are no layouts, too few GPUs, or a folder that is not there.
        SystemExit: SIGTERM; the ranks are ended, and the file of results keeps what was found.
    """
    from model.errors import InputError
    from moss_train.verify.layouts.record import Record
    from moss_train.verify.layouts.sweep import choose_device
    from moss_train.verify.ranks.names import check_ranks
    from moss_train.verify.ranks.report import as_markdown, as_text, summary, worst
    from moss_train.verify.ranks.sweep import run_checks

    ranks = check_ranks(args.ranks)
    if args.limit_seconds is not None and not args.limit_seconds > 0:
        raise InputError(f"--limit-seconds is {args.limit_seconds:g}; it must be above 0")
    if args.golden is not None and not (args.golden / "io.safetensors").is_file():
        raise InputError(f"--golden {args.golden} holds no io.safetensors; give the folder of a recording, or leave it out")
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise InputError(f"--json {args.json}: there is no folder {args.json.absolute().parent}; make it first")
    device = choose_device(args.device, ranks)
    record = None if args.json is None else Record(args.json, device, ranks)

    def progress(result: CaseResult) -> None:
        if record is not None:
            record.add(result)
        told = "; ".join([*result.reasons, result.skipped, worst(result)]).strip("; ")
        line = f"{result.check} {result.layout} {result.modules} {result.dtype}: {result.verdict} ({result.seconds:.1f} s) {told}"
        print(line.rstrip(), file=sys.stderr, flush=True)

    kinds = list(KINDS) if args.modules == "both" else [args.modules]
    with raised_at_sigterm(SystemExit(128 + signal.SIGTERM)):  # so that the ranks are ended too
        results = run_checks(ranks, kinds, device, progress, golden=args.golden, seconds=args.limit_seconds)
    if record is not None:
        record.finish()
    print((as_markdown if args.markdown else as_text)(results))
    for result in results:
        for reason in result.reasons:
            print(f"{result.check} {result.layout} {result.modules}: {reason}")
    print(summary(results, device))
    return 1 if any(result.reasons for result in results) else 0
