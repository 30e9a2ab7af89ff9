"""Renders what starts a run: the command of launch/torchrun.sh and the batch script of launch/slurm."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.config.schema import RunConfig


def launch_dir() -> Path:
    """The folder with torchrun.sh and slurm/: the one in the wheel, else `launch/` of the checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_launch", package.parent / "launch"):
        if (folder / "torchrun.sh").is_file():
            return folder
    raise InputError(f"torchrun.sh is not beside {package}; install moss-train again")


def torchrun_environment(config: RunConfig) -> dict[str, str]:
    """This process's environment with the launcher's values where the caller has set none."""
    launcher = config.launcher
    values = dict(launcher.env) | {
        "NPROC_PER_NODE": str(launcher.nproc_per_node),
        "NNODES": str(launcher.nodes),
        "PYTHON": sys.executable,
    }
    if launcher.nodes > 1:
        values["MASTER_PORT"] = str(launcher.master_port)
    return values | dict(os.environ)


def render_sbatch(config: RunConfig, train_args: list[str], *, work_dir: str | Path) -> str:
    """The batch script that trains `config` with one torchrun a node.

    Args:
        train_args: arguments of `moss train` on the nodes.
        work_dir: folder in which the nodes start, to which relative paths of the configuration belong.

    Raises:
        InputError: the world's size is not a multiple of the model-parallel size.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    launcher, parallel = config.launcher, config.parallel
    world = launcher.nodes * launcher.nproc_per_node
    model_ranks = parallel.tensor * parallel.pipeline * parallel.context
    if world % model_ranks:
        raise InputError(
            f"launcher.nodes x launcher.nproc_per_node is {world}, not a multiple of the {model_ranks} ranks of a model "
            f"(tensor {parallel.tensor} x pipeline {parallel.pipeline} x context {parallel.context}); change one of them"
        )
    environment = Environment(
        loader=FileSystemLoader(launch_dir() / "slurm"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["shell"] = lambda value: shlex.quote(str(value))
    values: dict[str, Any] = {
        "job_name": f"moss-{config.stage.name}",
        "launcher": launcher,
        "slurm": launcher.slurm,
        "log_dir": log_dir(config, work_dir),
        "work_dir": Path(work_dir).resolve(),
        "python": sys.executable,
        "torchrun": launch_dir() / "torchrun.sh",
        "train_args": train_args,
    }
    return environment.get_template("train.sbatch.j2").render(values)


def log_dir(config: RunConfig, work_dir: str | Path) -> Path:
    """Absolute folder of a job's output files."""
    return (Path(work_dir) / config.run_dir / config.launcher.log_dir).resolve()
