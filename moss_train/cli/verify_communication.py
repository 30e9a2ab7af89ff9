"""`moss verify communication`: count what real ranks send in a step, beside what the plan says."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

USUAL = ("dp2", "tp2", "tp2.sp", "tp2.rc", "pp2", "pp2.vpp2", "cp2", "tp2.sp.pp2", "tp2.dp2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `moss verify communication`."""
    parser.add_argument(
        "--layout", action="append", metavar="NAME", default=[],
        help=f"as in `moss verify layouts`; may be given several times (default: {' '.join(USUAL)})",
    )  # fmt: skip
    parser.add_argument("--preset", default="all", help="what trains: stage.trainable, or dense_labels (default all)")
    parser.add_argument("--optimizer", default="sharded", help="sharded | whole | muon (default sharded)")
    parser.add_argument("--dtype", default="fp32", help="fp32 | bf16, of parameters and activations (default fp32)")
    parser.add_argument("--bf16-gradients", action="store_true", help="sum the decoder's gradients in bf16")
    parser.add_argument("--lora", default="", metavar="TARGETS", help="adapters, as attention_qkv,mlp_fc1,gates (default none)")
    parser.add_argument("--text-only", action="store_true", help="packs without frames")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every rank's calls to this file")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def run(args: argparse.Namespace) -> int:
    """Counts and prints; 0 only if every number of every rank is as planned.

    Raises:
        InputError: a layout or a setting that there is not.
    """
    from model.errors import InputError
    from moss_train.parallel.spawn import run_on_ranks
    from moss_train.verify.communication.case import Case
    from moss_train.verify.communication.report import Result, as_markdown, as_text, count_cases

    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise InputError(f"--json {args.json}: there is no folder {args.json.absolute().parent}; make it first")
    cases = [
        Case(name, args.preset, args.optimizer, args.dtype, not args.bf16_gradients, not args.text_only, args.lora)
        for name in args.layout or USUAL
    ]

    def progress(result: Result) -> None:
        print(f"{result.case.words}: {len(result.rows)} kinds of calls", file=sys.stderr, flush=True)

    results = count_cases(cases, run_on_ranks, progress)
    if args.json is not None:
        content = [{"case": vars(r.case), "rows": [row.as_json() for row in r.rows]} for r in results]
        args.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print((as_markdown if args.markdown else as_text)(results))
    reasons = [reason for result in results for reason in result.reasons]
    for reason in reasons:
        print(reason)
    bad = sum(bool(result.reasons) for result in results)
    rows = sum(len(result.rows) for result in results)
    print(f"{len(results) - bad} of {len(results)} steps send what is planned on every rank ({rows} kinds of calls)")
    return 1 if bad else 0
