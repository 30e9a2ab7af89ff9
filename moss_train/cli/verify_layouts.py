"""`moss verify layouts`: train a tiny model in every parallel layout and hold each against one rank."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moss_train.verify.layouts.names import MODULES

if TYPE_CHECKING:
    from moss_train.verify.layouts.findings import TrialResult

ORDER = "loss, gradients, global norm and weights after 3 SGD and 3 AdamW updates"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `moss verify layouts`."""
    parser.add_argument(
        "--layout",
        action="append",
        metavar="NAME",
        default=[],
        help="only this layout, as tp2.sp, pp2.l1-5, cp2.dp2, or tp4:all with the preset all only; may be given several "
        "times (default: all up to --ranks)",
    )
    parser.add_argument(
        "--gpus",
        type=int,
        metavar="N",
        help="instead of --layout and --ranks: layouts that take 1, 2, 4 or 8 GPUs",
    )
    parser.add_argument("--ranks", type=int, default=4, metavar="N", help="most ranks of a layout (default 4; 8 is slow)")
    parser.add_argument("--preset", action="append", metavar="NAME", default=[], help="only this freeze preset (default: all)")
    parser.add_argument(
        "--device",
        choices=["auto", "cpu", "cuda"],
        default="auto",
        help="auto (default) takes GPUs if there is one for every rank of the largest layout",
    )
    parser.add_argument(
        "--modules",
        choices=list(MODULES),
        default="torch",
        help="what the decoder is made of; Transformer Engine is compared in bf16 only; auto: all that a run in bf16 takes here, "
        "tower and attention too; both: torch in fp32 and auto in bf16 (default torch)",
    )
    parser.add_argument("--no-bf16", dest="bf16", action="store_false", help="leave out the drift in bf16")
    parser.add_argument("--limit-seconds", type=float, metavar="S", help="begin no layout later than this (default: no limit)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every result to this file, at once")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")


def run(args: argparse.Namespace) -> int:
    """Runs the check and prints the table; 0 only if every layout is within the tolerances.

    Raises:
        InputError: an unknown layout or preset, or too few GPUs.
    """
    from model.errors import InputError
    from moss_train.verify.layouts.names import PRESETS, check_preset, choose_layouts, layouts_of_gpus

    presets = [check_preset(preset) for preset in args.preset] or list(PRESETS)
    if args.ranks < 1:
        raise InputError(f"--ranks is {args.ranks}; it must be at least 1")
    if args.gpus is not None and args.layout:
        raise InputError("--gpus and --layout both choose layouts; give one of them")
    if args.limit_seconds is not None and not args.limit_seconds > 0:
        raise InputError(f"--limit-seconds is {args.limit_seconds:g}; it must be above 0")
    layouts = choose_layouts(args.layout, args.ranks) if args.gpus is None else layouts_of_gpus(args.gpus)
    if args.json is not None and not args.json.absolute().parent.is_dir():
        raise InputError(f"--json {args.json}: there is no folder {args.json.absolute().parent}; make it first")

    from moss_train.verify.layouts.record import Record
    from moss_train.verify.layouts.sweep import Sweep, choose_device

    device = choose_device(args.device, max(layout.ranks for layout in layouts))
    if args.modules == "transformer_engine" and device != "cuda":
        raise InputError("--modules transformer_engine needs a GPU for every rank; choose smaller layouts or --modules torch")
    print(f"{ORDER} in {len(layouts)} layouts on {device}", file=sys.stderr)
    record = None if args.json is None else Record(args.json, device, max(layout.ranks for layout in layouts))
    show = _progress(len({layout.name for layout in layouts}))

    def progress(result: TrialResult) -> None:
        if record is not None:
            record.add(result)
        show(result)

    results = Sweep(presets, device, args.bf16, progress, args.modules, seconds=args.limit_seconds).run(layouts)
    if record is not None:
        record.finish()
    return _report(results, markdown=args.markdown, device=device)


def _report(results: Sequence[TrialResult], *, markdown: bool, device: str) -> int:
    """Prints the table and the reasons; 1 where something fails."""
    from moss_train.verify.layouts.findings import BF16_REFERENCE
    from moss_train.verify.layouts.report import as_markdown, as_text, bf16_sentence, rows_of

    rows = rows_of(results)
    print((as_markdown if markdown else as_text)(rows))
    if sentence := bf16_sentence(results):
        print(sentence)
    drifts = [f"{result.layout}: {reason}" for result in results if result.layout == BF16_REFERENCE for reason in result.reasons]
    for line in [*drifts, *(f"{row.layout}: {reason}" for row in rows for reason in row.reasons)]:
        print(line)
    bad, left_out = sum(bool(row.reasons) for row in rows), sum(row.skipped for row in rows)
    good, done = len(rows) - bad - left_out, sum(not result.skipped for result in results)
    late = f"; for {left_out} there was no time" * bool(left_out)
    print(f"{good} of {len(rows)} layouts compute what one rank computes ({done} trials on {device}){late}")
    return 1 if bad or drifts else 0


def _progress(layouts: int) -> Callable[[TrialResult], None]:
    """Prints a line on stderr when a layout begins to give results, and what runs now where that is a terminal."""
    from moss_train.verify.layouts.findings import BF16_REFERENCE

    begun: list[str] = []

    def show(result: TrialResult) -> None:
        if result.layout not in [BF16_REFERENCE, *begun]:
            begun.append(result.layout)
            print(f"[{len(begun)}/{layouts}] {result.layout} ({result.ranks} ranks)", file=sys.stderr, flush=True)
        if result.reasons:
            print(
                f"    {result.preset} {result.optimizer} {result.dtype}: {'; '.join(result.reasons)}", file=sys.stderr, flush=True
            )
        elif sys.stderr.isatty():
            print(f"    {result.preset} {result.optimizer} {result.dtype}\033[K", end="\r", file=sys.stderr, flush=True)

    return show
