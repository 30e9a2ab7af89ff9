"""`moss convert to-hf RUN OUT`, `from-hf HF RUN`, `verify RUN HF` and `random MODEL OUT`."""

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
    to_hf.add_argument("run", type=Path, help="run folder (its newest checkpoint), RUN@best, or a checkpoint folder")
    to_hf.add_argument("out", type=Path, help="folder to write; a checkpoint that is already there is replaced")
    to_hf.add_argument(
        "--format",
        default="video_mllama",
        choices=["video_mllama", "mllama"],
        help="video_mllama (default) says how frames are pooled; mllama is the plain layout for stock transformers",
    )
    help_text = "tokenizer.json to put beside the weights, or a folder with one and its companions (default: the run's own)"
    to_hf.add_argument("--tokenizer", type=Path, help=help_text)
    help_text = "write the running averages of the trained weights (of a run with optimizer.ema_decay) instead of the weights"
    to_hf.add_argument("--ema", action="store_true", help=help_text)
    help_text = "write a run's low-rank adapters alone, in the layout of the PEFT library, instead of merging them"
    to_hf.add_argument("--adapters", action="store_true", help=help_text)
    to_hf.add_argument("--base", help="with --adapters: where the weights without adapters are, for adapter_config.json")
    text = "a folder in the Hugging Face layout to the first checkpoint of a run"
    from_hf = directions.add_parser("from-hf", help=text, epilog="example: moss convert from-hf hf/realtime runs/start")
    from_hf.add_argument("hf", type=Path, help="folder with config.json and safetensors (mllama or video_mllama)")
    from_hf.add_argument("run", type=Path, help="run folder to write; give it as train.init_from")
    help_text = "refuse a model that cannot be trained with this {}; what is written does not depend on it (default 1)"
    from_hf.add_argument("--tp", type=int, default=1, help=help_text.format("tensor-parallel size"))
    from_hf.add_argument("--pp", type=int, default=1, help=help_text.format("number of pipeline stages"))
    text = "compare a checkpoint and a folder: every tensor's bytes, and the logits of both"
    verify = directions.add_parser("verify", help=text, epilog="example: moss convert verify runs/start hf/realtime")
    verify.add_argument("run", type=Path, help="run folder (its newest checkpoint), RUN@best, or a checkpoint folder")
    verify.add_argument("hf", type=Path, help="folder in the Hugging Face layout")
    for direction in (to_hf, from_hf):
        direction.add_argument("--no-verify", action="store_true", help="do not compare source and target afterwards")
    for direction in (to_hf, from_hf, verify):
        direction.add_argument("--no-logits", action="store_true", help="compare the tensors' bytes only, not the logits")
    text = "a folder of random weights of any size, to try a conversion with"
    random = directions.add_parser("random", help=text, epilog="example: moss convert random 11b hf/random_11b")
    random.add_argument("model", help="a group of conf/model (tiny, small, 11b, 90b) or the path of a config.json")
    random.add_argument("out", type=Path, help="folder to write; a checkpoint that is already there is replaced")
    random.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"], help="dtype of the weights (default bf16)")
    random.add_argument("--seed", type=int, default=0, help="equal seeds give equal weights (default 0)")


def run(args: argparse.Namespace) -> int:
    """Converts, verifies and prints what was written.

    Returns:
        0; 1 where the verification found a difference.

    Raises:
        InputError: a missing or broken source, a bad target, or sizes that do not fit the model.
    """
    work = {"to-hf": _to_hf, "from-hf": _from_hf, "verify": _verify, "random": _random}
    return work[args.direction](args)


def _to_hf(args: argparse.Namespace) -> int:
    if args.adapters:
        return _adapters(args)
    if args.base is not None:
        from model.errors import InputError

        raise InputError(f"--base is {args.base}, which only --adapters writes down; add --adapters or leave out --base")
    from moss_train.convert.to_hf import checkpoint_to_hf

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", message="format mllama")
        checkpoint, out = checkpoint_to_hf(
            args.run, args.out, model_format=args.format, tokenizer=args.tokenizer, average=args.ema
        )
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    print(f"{checkpoint} -> {out}")
    return _check(args, checkpoint, out)


def _adapters(args: argparse.Namespace) -> int:
    from model.errors import InputError
    from moss_train.convert.adapters import checkpoint_to_adapters

    if args.format != "video_mllama" or args.tokenizer is not None or args.ema:
        raise InputError("--adapters writes no weights, averages or tokenizer; leave out --format, --tokenizer and --ema")
    checkpoint, out = checkpoint_to_adapters(args.run, args.out, args.base)
    print(f"adapters of {checkpoint} -> {out}")
    return 0


def _from_hf(args: argparse.Namespace) -> int:
    from moss_train.convert.from_hf import hf_to_checkpoint

    if (args.tp, args.pp) != (1, 1):
        _check_layout(args)
    checkpoint = hf_to_checkpoint(args.hf, args.run)
    print(f"{args.hf} -> {checkpoint}")
    return _check(args, checkpoint, args.hf)


def _check_layout(args: argparse.Namespace) -> None:
    from model.conversion.folder import read_hf_folder
    from model.errors import InputError
    from moss_train import platform

    for name, value in (("--tp", args.tp), ("--pp", args.pp)):
        if value < 1:
            raise InputError(f"{name} is {value}; it must be at least 1")
    platform.install()
    from model.text.transformer_config import make_transformer_config

    make_transformer_config(read_hf_folder(args.hf)[0], tensor=args.tp, pipeline=args.pp)


def _check(args: argparse.Namespace, checkpoint: Path, folder: Path) -> int:
    """The verification after a conversion."""
    if args.no_verify:
        return 0
    from moss_train.cli.convert_check import verify_pair

    return verify_pair(checkpoint, folder, logits=not args.no_logits, average=getattr(args, "ema", False))


def _verify(args: argparse.Namespace) -> int:
    from moss_train.checkpoint.description import find_checkpoint
    from moss_train.cli.convert_check import verify_pair

    return verify_pair(find_checkpoint(args.run), args.hf, logits=not args.no_logits)


def _random(args: argparse.Namespace) -> int:
    from moss_train.convert.random_folder import model_named, write_random_folder

    out = write_random_folder(model_named(args.model), args.out, dtype=args.dtype, seed=args.seed)
    print(f"random weights of {args.model} -> {out}")
    return 0
