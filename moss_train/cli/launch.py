"""`moss launch local|torchrun|slurm|kubernetes`: start a training run on this machine, on several, or on a cluster."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import InputError

if TYPE_CHECKING:
    from moss_train.config.schema import RunConfig

KINDS = {
    "local": "ranks on this machine, started by moss",
    "torchrun": "launch/torchrun.sh: this machine, or the same line on each of several",
    "slurm": "a batch job, or a chain of them",
    "kubernetes": "a manifest for kubectl",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from moss_train.config.arguments import add_config_arguments

    kinds = "; ".join(f"{name}: {what}" for name, what in KINDS.items())
    parser.add_argument("launcher", choices=tuple(KINDS), help=kinds)
    parser.add_argument("--dry-run", action="store_true", help="print the exact command, script or manifest and start nothing")
    parser.add_argument("--no-plan", action="store_true", help="do not hold the run against `moss plan` first")
    parser.add_argument(
        "--chain",
        action="append",
        metavar="LINKS",
        help="Slurm: stages that follow one another, such as pt1,pt2,sft_offline,sft_realtime; each is a job that begins with "
        "the weights of the one before, in run_dir/STAGE. Given several times, each names one with overrides of its own: "
        "--chain 'pt1 train.steps=500' --chain experiment=pt2_11b_64",
    )
    parser.add_argument("--after", metavar="JOB", help="Slurm: start when that job has ended well")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Start the run, or print how it would be started."""
    from moss_train.config.arguments import config_from_args, print_config

    own = (
        [f"launcher={args.launcher}"]
        if args.config is None and not any(o.startswith("launcher=") for o in args.overrides)
        else []
    )
    if args.launcher != "slurm" and (args.chain or args.after):
        raise InputError(f"{'--chain' if args.chain else '--after'} is of Slurm; use `moss launch slurm`")
    if args.chain:
        return _chain(args, own)
    args.overrides = [*own, *args.overrides]
    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    _plan(config, args)
    if args.launcher == "kubernetes":
        from moss_train.launching.kubernetes import launch_kubernetes

        return launch_kubernetes(config, args.dry_run)
    if args.launcher == "slurm":
        return _slurm([config], args)
    return _local(config, args) if args.launcher == "local" else _torchrun(config, args)


def _plan(config: RunConfig, args: argparse.Namespace, name: str = "") -> None:
    """Refuse what cannot be; say what was planned."""
    if args.no_plan:
        return
    from moss_train.launching.plan_gate import hold_against_plan

    try:
        planned = hold_against_plan(config)
    except InputError as error:
        raise InputError(f"{name + ': ' if name else ''}{error} (--no-plan starts it all the same)") from None
    if planned is not None:
        print(f"moss plan: {name + ', ' if name else ''}{planned}", file=sys.stderr, flush=True)


def _train_args(args: argparse.Namespace) -> list[str]:
    """The arguments as `moss train` takes them."""
    options = (("--config", args.config), ("--conf-dir", args.conf_dir))
    return [word for option, value in options if value for word in (option, value)] + list(args.overrides)


def _local(config: RunConfig, args: argparse.Namespace) -> int:
    from moss_train.parallel.local_ranks import start_local_ranks
    from moss_train.parallel.sizes import check_world

    words, ranks = ["train", *_train_args(args)], config.launcher.nproc_per_node
    check_world(config, ranks)
    if args.dry_run:
        print(shlex.join(["moss", *words, "--nproc-per-node", str(ranks)]))
        return 0
    os.environ.update({name: value for name, value in config.launcher.env.items() if name not in os.environ})
    return start_local_ranks(ranks, "moss_train.cli.main", words)


def _torchrun(config: RunConfig, args: argparse.Namespace) -> int:  # noqa: RET503 (it becomes another program)
    from moss_train.launching.container import torchrun_command, wrap
    from moss_train.launching.environment import torchrun_environment

    environment = torchrun_environment(config)
    moss = [environment["PYTHON"], "-m", "moss_train.cli.main"]
    check, fill = [*moss, "preflight", *_train_args(args)], [*moss, "data", "cache", *_train_args(args)]
    before = [check] * config.launcher.preflight.enabled + [fill] * bool(config.launcher.cache.folder)
    script = [*torchrun_command(config), *(["--dry-run"] if args.dry_run else []), *_train_args(args)]
    commands = [wrap(words, config, Path.cwd(), environment=environment) for words in (*before, script)]
    if args.dry_run:
        shown = commands if config.launcher.container.runtime != "none" else commands[:-1]  # the script shows its own command
        print("".join(f"{shlex.join(words)}\n" for words in shown), end="", flush=True)
        if shown == commands:
            return 0
    for words in () if args.dry_run else commands[:-1]:
        code = subprocess.run(words, env=environment, check=False).returncode
        if code and "preflight" in words:
            return code
        if code:
            print(f"moss: the cache of shards was not filled (exit code {code}); they are read where they are", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(commands[-1][0], commands[-1], environment)


def _chain(args: argparse.Namespace, own: list[str]) -> int:
    from moss_train.config.arguments import print_config
    from moss_train.launching.chain import links

    if args.config is not None:
        raise InputError("--config has no effect on a chain, whose runs are composed; give overrides or --conf-dir")
    words = [part for word in args.chain for part in ([word] if "=" in word else word.split(","))]
    made = links(words, args.overrides, extra_dir=args.conf_dir, before=own)
    if args.print_config:
        for link in made:
            print(f"# {link.name}")
            print_config(link.config)
        return 0
    for link in made:
        _plan(link.config, args, link.name)
    return _slurm([link.config for link in made], args)


def _slurm(configs: list[RunConfig], args: argparse.Namespace) -> int:
    from moss_train.launching.folder import log_dir
    from moss_train.launching.slurm import render_sbatch, submit

    here, after = Path.cwd(), args.after or ""
    for config in configs:
        if args.dry_run:
            print(render_sbatch(config, work_dir=here, after=after), end="")
            after = f"<job of {config.run_dir}>"
            continue
        number = submit(config, work_dir=here, after=after)
        behind = f", behind job {after}" if after else ""
        print(f"Slurm job {number}: {config.stage.name} in {config.run_dir}{behind}; logs in {log_dir(config, here)}")
        after = number
    return 0
