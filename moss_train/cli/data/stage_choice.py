"""The stage under which `lint` and `preview` look at samples."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.errors import InputError
from moss_train.config.schema import RunConfig


def add_stage_arguments(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Arguments that `config_of` and `tokenizer_file` read; `default` is told here and applied there."""
    parser.add_argument("--stage", help=f"stage of conf/stage, such as pt2 (default: {default or 'none'})")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="other settings: stage.sequence_length=2048"
    )
    parser.add_argument("--config", metavar="FILE", help="take stage and tokenizer from a run's config.yaml instead")
    parser.add_argument("--conf-dir", metavar="DIR", help="folder of your own groups")
    parser.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json (default: the configuration's data.tokenizer)")


def config_of(args: argparse.Namespace, default: str | None = None) -> RunConfig | None:
    """The configuration that the arguments describe, of the stage `default` where they name none; None without either.

    Raises:
        InputError: a setting that is no override, one that is refused, or an argument that would have no effect.
    """
    from moss_train.config.compose import compose, load_config

    for word in args.set:
        if "=" not in word:
            raise InputError(f"--set {word!r} is not of the form KEY=VALUE, such as stage.sequence_length=2048")
    if args.config is not None:
        if args.stage is not None or args.conf_dir is not None:
            raise InputError("--stage and --conf-dir have no effect with --config; change values of the file with --set")
        return load_config(args.config, args.set)
    named = any(word.startswith(("stage=", "demo=")) for word in args.set)
    stage = args.stage if args.stage is not None or named else default
    if stage is None and not named:
        for name in ("set", "tokenizer", "conf_dir"):
            if getattr(args, name):
                raise InputError(f"--{name.replace('_', '-')} has no effect without --stage or --config; name a stage")
        return None
    chosen = [f"stage={stage}"] if stage is not None else []
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
