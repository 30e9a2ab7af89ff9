"""`moss convert to-hf RUN OUT` and `moss convert from-hf HF RUN`."""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `moss convert`."""
    directions = parser.add_subparsers(dest="direction", required=True, metavar="DIRECTION")
    text = "a run's checkpoint to a folder in the Hugging Face layout"
    to_hf = directions.add_parser("to-hf", help=text, epilog="example: moss convert to-hf runs/sft_realtime hf/realtime")
    to_hf.add_argument("run", type=Path, help="run folder (its newest checkpoint) or a checkpoint folder")
    to_hf.add_argument("out", type=Path, help="folder to write; a checkpoint that is already there is replaced")
    to_hf.add_argument(
        "--format",
        default="video_mllama",
        choices=["video_mllama", "mllama"],
        help="video_mllama (default) says how frames are pooled; mllama is the plain layout for stock transformers",
    )
    to_hf.add_argument("--tokenizer", type=Path, help="tokenizer.json to put beside the weights (default: the run's own)")
    text = "a folder in the Hugging Face layout to the first checkpoint of a run"
    from_hf = directions.add_parser("from-hf", help=text, epilog="example: moss convert from-hf hf/realtime runs/start --tp 2")
    from_hf.add_argument("hf", type=Path, help="folder with config.json and safetensors (mllama or video_mllama)")
    from_hf.add_argument("run", type=Path, help="run folder to write; give it as train.init_from")
    from_hf.add_argument("--tp", type=int, default=1, help="tensor-parallel ranks that write it (default 1; any layout reads it)")
    from_hf.add_argument("--pp", type=int, default=1, help="pipeline stages that write it (default 1)")


def run(args: argparse.Namespace) -> int:
    """Converts and prints what was written.

    Raises:
        InputError: a missing or broken source, a bad target, or sizes that do not fit the model.
    """
    from moss_train import platform

    platform.install()
    return _to_hf(args) if args.direction == "to-hf" else _from_hf(args)


def _to_hf(args: argparse.Namespace) -> int:
    from moss_train.convert.to_hf import checkpoint_to_hf

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message="format mllama")
        checkpoint, out = checkpoint_to_hf(args.run, args.out, model_format=args.format, tokenizer=args.tokenizer)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    print(f"{checkpoint} -> {out}")
    return 0


def _from_hf(args: argparse.Namespace) -> int:
    from model.conversion.folder import read_hf_folder
    from model.errors import InputError
    from model.text.transformer_config import make_transformer_config
    from moss_train.convert.from_hf import check_target, copy_tokenizer, hf_to_checkpoint
    from moss_train.parallel.spawn import run_on_ranks

    for name, value in (("--tp", args.tp), ("--pp", args.pp)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    check_target(args.run)
    # Sizes and files are checked here, before any process is started.
    make_transformer_config(read_hf_folder(args.hf)[0], tensor=args.tp, pipeline=args.pp)
    if args.tp * args.pp == 1:
        checkpoint = hf_to_checkpoint(args.hf, args.run, tensor=1, pipeline=1)
    else:
        values = [args.hf.resolve(), args.run.resolve(), args.tp, args.pp]
        checkpoint = run_on_ranks("moss_train.convert.from_hf", args.tp * args.pp, values)
    copy_tokenizer(args.hf, args.run)
    print(f"{args.hf} -> {checkpoint}")
    return 0
