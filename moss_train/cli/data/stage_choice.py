"""The stage under which `lint` and `preview` look at samples."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.errors import InputError
from moss_train.config.schema import RunConfig


def add_stage_arguments(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Arguments that `config_of` and `tokenizer_file` read."""
    parser.add_argument("--stage", default=default, help=f"stage of conf/stage, such as pt2 (default: {default or 'none'})")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="other settings: stage.sequence_length=2048"
    )
    parser.add_argument("--config", metavar="FILE", help="take stage and tokenizer from a run's config.yaml instead")
    parser.add_argument("--conf-dir", metavar="DIR", help="folder of your own groups")
    parser.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json (default: the configuration's data.tokenizer)")


def config_of(args: argparse.Namespace) -> RunConfig | None:
    """The configuration that the arguments describe; None where they name no stage.

    Raises:
        InputError: a setting that is no override, or one that is refused.
    """
    from moss_train.config.compose import compose, load_config

    for word in args.set:
        if "=" not in word:
            raise InputError(f"--set {word!r} is not of the form KEY=VALUE, such as stage.sequence_length=2048")
    if args.config is not None:
        return load_config(args.config, args.set)
    if args.stage is None and not any(word.startswith(("stage=", "demo=")) for word in args.set):
        if args.set:
            raise InputError("--set has no effect without --stage or --config; name a stage")
        return None
    chosen = [f"stage={args.stage}"] if args.stage is not None else []
    return compose([*chosen, *args.set], extra_dir=args.conf_dir)


def tokenizer_file(args: argparse.Namespace, config: RunConfig) -> str:
    """Path of the tokenizer.

    Raises:
        InputError: there is none.
    """
    path = Path(args.tokenizer) if args.tokenizer else Path(config.data.root) / config.data.tokenizer
    if not path.exists():
        raise InputError(f"tokenizer {path} does not exist; name one with --tokenizer or make one with `moss data tokenizer`")
    return str(path)
