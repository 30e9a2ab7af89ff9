"""`moss launch torchrun|slurm`: start a training run by launch/torchrun.sh or as a Slurm job."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from model.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from moss_train.config.arguments import add_config_arguments

    parser.add_argument("launcher", choices=("torchrun", "slurm"), help="torchrun: on this node, now; slurm: as a batch job")
    parser.add_argument("--dry-run", action="store_true", help="print the exact command or batch script and start nothing")
    add_config_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Start the run, or print how it would be started."""
    from moss_train.config.arguments import config_from_args, print_config

    if args.config is None and not any(o.startswith("launcher=") for o in args.overrides):
        args.overrides.append(f"launcher={args.launcher}")
    config = config_from_args(args)
    if args.print_config:
        print_config(config)
        return 0
    return _torchrun(args) if args.launcher == "torchrun" else _slurm(args)


def _train_args(args: argparse.Namespace) -> list[str]:
    """The arguments as `moss train` takes them."""
    options = [
        word
        for name in ("config", "conf_dir")
        if getattr(args, name)
        for word in (f"--{name.replace('_', '-')}", getattr(args, name))
    ]
    return [*options, *args.overrides]


def _torchrun(args: argparse.Namespace) -> int:
    from moss_train.config.arguments import config_from_args
    from moss_train.launching.environment import torchrun_environment
    from moss_train.launching.folder import launch_dir

    script = ["bash", str(launch_dir() / "torchrun.sh")]
    environment = torchrun_environment(config_from_args(args))
    command = [*script, *(["--dry-run"] if args.dry_run else []), *_train_args(args)]
    sys.stdout.flush()
    os.execvpe("bash", command, environment)


def _slurm(args: argparse.Namespace) -> int:
    from moss_train.config.arguments import config_from_args
    from moss_train.config.compose import save_config
    from moss_train.launching.folder import log_dir
    from moss_train.launching.slurm import render_sbatch

    config = config_from_args(args)
    here = Path.cwd()
    folder = here / config.run_dir / "launch"
    script = render_sbatch(config, ["--config", str(folder / "config.yaml")], work_dir=here)
    if args.dry_run:
        print(script, end="")
        return 0
    if shutil.which("sbatch") is None:
        raise InputError("sbatch is not on PATH; run this on a login node of the cluster, or add --dry-run to see the script")
    # The job reads a frozen config: editing conf/ while it waits in the queue changes nothing.
    folder.mkdir(parents=True, exist_ok=True)
    log_dir(config, here).mkdir(parents=True, exist_ok=True)
    save_config(config, folder / "config.yaml")
    temporary = folder / f".train.sbatch.{os.getpid()}"
    temporary.write_text(script, encoding="utf-8")
    os.replace(temporary, folder / "train.sbatch")
    return subprocess.run(["sbatch", str(folder / "train.sbatch")], check=False).returncode
