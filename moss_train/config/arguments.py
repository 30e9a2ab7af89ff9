"""The arguments with which a command takes a configuration: overrides, `--config`, `--conf-dir`, `--print-config`."""

from __future__ import annotations

import argparse

from model.errors import InputError
from moss_train.config.compose import compose, load_config, to_yaml
from moss_train.config.schema import RunConfig


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that `config_from_args` reads."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="group choices and values: stage=pt2 train.steps=500")
    parser.add_argument("--config", metavar="FILE", help="start from a resolved config, such as the config.yaml of a run folder")
    parser.add_argument("--conf-dir", metavar="DIR", help="folder of your own groups: DIR/data/mine.yaml becomes data=mine")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and stop")


def config_from_args(args: argparse.Namespace) -> RunConfig:
    """The `RunConfig` that the arguments describe.

    Raises:
        InputError: see `compose` and `load_config`.
    """
    for word in args.overrides:
        if "=" not in word and not word.startswith("~"):
            raise InputError(f"{word!r} is not an override; write KEY=VALUE, for example stage=pt1")
    if args.config is None:
        return compose(args.overrides, extra_dir=args.conf_dir)
    if args.conf_dir is not None:
        raise InputError("--conf-dir has no effect on --config, which is resolved already; give one of the two")
    return load_config(args.config, args.overrides)


def print_config(config: RunConfig) -> None:
    """Write the resolved config to stdout as YAML that `--config` takes."""
    print(to_yaml(config), end="")
