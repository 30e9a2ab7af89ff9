"""The batch script of a Slurm job, rendered from launch/slurm/train.sbatch.j2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.launching.environment import interpreter
from moss_train.launching.folder import launch_dir, log_dir
from moss_train.launching.templates import render


def render_sbatch(config: RunConfig, train_args: list[str], *, work_dir: str | Path) -> str:
    """The batch script that trains `config` with one torchrun a node.

    Args:
        train_args: arguments of `moss train` on the nodes.
        work_dir: folder in which the nodes start, to which relative paths of the configuration belong.

    Raises:
        InputError: the world's size is not a multiple of the model-parallel size.
    """
    launcher, parallel = config.launcher, config.parallel
    world = launcher.nodes * launcher.nproc_per_node
    model_ranks = parallel.tensor * parallel.pipeline * parallel.context
    if world % model_ranks:
        raise InputError(
            f"launcher.nodes x launcher.nproc_per_node is {world}, not a multiple of the {model_ranks} ranks of a model "
            f"(tensor {parallel.tensor} x pipeline {parallel.pipeline} x context {parallel.context}); change one of them"
        )
    values: dict[str, Any] = {
        "job_name": f"moss-{config.stage.name}",
        "launcher": launcher,
        "slurm": launcher.slurm,
        "log_dir": log_dir(config, work_dir),
        "work_dir": Path(work_dir).resolve(),
        "python": interpreter(config),
        "torchrun": launch_dir() / "torchrun.sh",
        "train_args": train_args,
    }
    return render("slurm/train.sbatch.j2", values)
