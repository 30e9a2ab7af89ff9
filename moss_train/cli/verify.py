"""`moss verify golden DIR`: replay recorded quantities and print one line for each; `moss verify layouts` beside it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moss_train.config.schema import ParallelConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `moss verify`."""
    from moss_train.cli import verify_communication, verify_layouts, verify_precision, verify_ranks, verify_vision

    checks = parser.add_subparsers(dest="what", required=True, metavar="CHECK")
    text = "replay recorded inputs and outputs of a tiny model in a layout"
    golden = checks.add_parser("golden", help=text, epilog="example: moss verify golden recorded --tp 2 --sp")
    golden.add_argument("dir", type=Path, help="folder with config.json, weights.safetensors and io.safetensors")
    golden.add_argument("--tp", type=int, default=1, help="tensor-parallel ranks (default 1)")
    golden.add_argument("--pp", type=int, default=1, help="pipeline stages (default 1)")
    golden.add_argument("--vpp", type=int, default=1, help="virtual stages of each pipeline stage (default 1)")
    golden.add_argument("--cp", type=int, default=1, help="context-parallel ranks (default 1)")
    golden.add_argument("--sp", action="store_true", help="sequence parallel; needs --tp")
    text = "train a tiny model in every parallel layout and hold each against one rank"
    layouts = checks.add_parser("layouts", help=text, epilog="example: moss verify layouts --layout tp2.sp --layout pp2")
    verify_layouts.add_arguments(layouts)
    text = "save, resume and reshard on real ranks, and have one of them fail: bit for bit, and alike on all ranks"
    verify_ranks.add_arguments(
        checks.add_parser("ranks", help=text, epilog="example: moss verify ranks --ranks 2 --json found.json")
    )
    text = "count what the ranks of a layout send in a step, beside what moss plan communication says"
    example = "example: moss verify communication --layout tp2.sp.pp2"
    verify_communication.add_arguments(checks.add_parser("communication", help=text, epilog=example))
    text = "on a GPU: Transformer Engine and fp8 against torch's modules in fp32 and bf16"
    engine = checks.add_parser("engine", help=text, epilog="example: moss verify engine --json engine.json")
    engine.add_argument("--json", type=Path, metavar="FILE", help="also write everything that was found to this file")
    engine.add_argument("--steps", type=int, default=200, help="optimizer steps of the loss curves (default 200)")
    text = "exact vision against the published tower, fast modes against exact: features, tokens, KL"
    vision = checks.add_parser("vision", help=text, epilog="example: moss verify vision hf/realtime --video clip.mp4 --mode fast")
    verify_vision.add_arguments(vision)
    text = "fp8 weights, or fp8 keys and values of frames, against the whole weights: logits, tokens, KL"
    precision = checks.add_parser("precision", help=text, epilog="example: moss verify precision hf/realtime --recipe fp8")
    verify_precision.add_arguments(precision)


def run(args: argparse.Namespace) -> int:
    """Runs the check; 0 only if everything is within its tolerance.

    Raises:
        InputError: bad arguments, a bad folder or sizes that do not fit the model.
    """
    from moss_train.cli import verify_communication, verify_layouts, verify_precision, verify_ranks, verify_vision

    if args.what == "ranks":
        return verify_ranks.run(args)
    if args.what == "communication":
        return verify_communication.run(args)
    if args.what == "engine":
        return _engine(args)
    if args.what == "vision":
        return verify_vision.run(args)
    if args.what == "precision":
        return verify_precision.run(args)
    return verify_layouts.run(args) if args.what == "layouts" else _golden(args)


def _engine(args: argparse.Namespace) -> int:
    from model.errors import InputError
    from moss_train import platform

    platform.install()
    from moss_train.verify.engine.report import run as check

    if args.steps < 10:
        raise InputError(f"--steps is {args.steps}; it must be at least 10")
    return check(args.json, args.steps)


def _golden(args: argparse.Namespace) -> int:
    from moss_train import platform

    platform.install()
    from moss_train.cli.golden_ranks import replay
    from moss_train.parallel.sizes import check_sizes
    from moss_train.verify.golden import TOLERANCE, check_layout, read_golden

    sizes = _sizes(args)
    ranks = sizes.tensor * sizes.pipeline * sizes.context
    check_sizes(sizes, ranks)
    check_layout(read_golden(args.dir).config, sizes)
    if ranks == 1:
        found = replay(args.dir, sizes)
    else:
        from moss_train.parallel.spawn import run_on_ranks

        answer = run_on_ranks("moss_train.cli.golden_ranks", ranks, [args.dir.resolve(), json.dumps(dataclasses.asdict(sizes))])
        found = [(name, float(value)) for name, value in answer]
    width = max(len(name) for name, _ in found)
    for name, value in found:
        print(f"{name:<{width}}  {value:.3e}  {'ok' if value <= TOLERANCE else 'DIFFERS'}")
    bad = [name for name, value in found if not value <= TOLERANCE]
    print(f"{len(found) - len(bad)} of {len(found)} quantities within {TOLERANCE:g} ({_described(sizes)})")
    return 1 if bad else 0


def _sizes(args: argparse.Namespace) -> ParallelConfig:
    """The layout of the arguments; every field of another name than the argument keeps its own sentence."""
    from model.errors import InputError
    from moss_train.config.schema import ParallelConfig

    for name in ("tp", "pp", "vpp", "cp"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    return ParallelConfig(tensor=args.tp, pipeline=args.pp, virtual_pipeline=args.vpp, context=args.cp, sequence_parallel=args.sp)


def _described(sizes: ParallelConfig) -> str:
    parts = [f"tensor {sizes.tensor}", f"pipeline {sizes.pipeline}"]
    parts += [f"virtual {sizes.virtual_pipeline}"] * (sizes.virtual_pipeline > 1)
    parts += [f"context {sizes.context}"] * (sizes.context > 1)
    return ", ".join(parts + ["sequence parallel"] * sizes.sequence_parallel)
