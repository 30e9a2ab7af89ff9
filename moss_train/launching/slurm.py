"""The batch script of a Slurm job, rendered from launch/slurm/train.sbatch.j2, and its submission."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from model.errors import InputError
from moss_train.config.compose import save_config, to_yaml
from moss_train.config.schema import RunConfig
from moss_train.launching.environment import interpreter, node_environment
from moss_train.launching.folder import job_dir, log_dir
from moss_train.launching.nodes import check_node_counts
from moss_train.launching.slurm_steps import MOST_ADDED_TO_THE_PORT
from moss_train.launching.templates import render


def job_name(config: RunConfig, work_dir: str | Path) -> str:
    """`moss-pt2-1f0c9a`: the stage, and digits of the run folder's path, so that jobs of one run wait for each other."""
    path = str((Path(work_dir) / config.run_dir).resolve())
    return f"moss-{config.stage.name}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"


def frozen_config(config: RunConfig, work_dir: str | Path) -> Path:
    """Where the resolved configuration lies that the job reads.

    Editing `conf/` while the job waits in the queue changes nothing, nor does another submission for the same run: the name
    has digits of the content.
    """
    digits = hashlib.sha256(to_yaml(config).encode()).hexdigest()[:8]
    return (job_dir(Path(work_dir) / config.run_dir) / f"config-{digits}.yaml").resolve()


def render_sbatch(config: RunConfig, *, work_dir: str | Path, after: str = "") -> str:
    """The batch script that trains `config` with one torchrun a node.

    Args:
        work_dir: folder in which the nodes start, to which relative paths of the configuration belong.
        after: number of the job that must have ended well before.

    Raises:
        InputError: nodes that cannot hold the run.
    """
    check_node_counts(config)
    if config.launcher.elastic:
        raise InputError(
            "launcher.elastic is true, which is torchrun's own way without a scheduler; set it to false: "
            "a Slurm job goes on with launcher.min_nodes when it is queued again"
        )
    if config.launcher.master_port + MOST_ADDED_TO_THE_PORT > 65535:
        raise InputError(
            f"launcher.master_port is {config.launcher.master_port}; a Slurm job adds up to {MOST_ADDED_TO_THE_PORT} to it: "
            f"choose at most {65535 - MOST_ADDED_TO_THE_PORT}"
        )
    if config.launcher.container.runtime == "docker":
        raise InputError("launcher.container.runtime is docker, which srun cannot start; use pyxis or apptainer")
    # A second job of the run folder waits until the first is gone; Slurm knows only those of the same user.
    dependency = ",".join([*([f"afterok:{after}"] if after else []), "singleton"])
    values = {
        "job_name": job_name(config, work_dir),
        "launcher": config.launcher,
        "slurm": config.launcher.slurm,
        "dependency": dependency if config.launcher.slurm.segments == 1 else dependency.removesuffix("singleton").rstrip(","),
        "log_dir": str(log_dir(config, work_dir)).replace("%", "%%"),
        "work_dir": Path(work_dir).resolve(),
        "environment": node_environment(config),
        "python": interpreter(config) if config.launcher.container.runtime == "none" else sys.executable,
        "config_path": frozen_config(config, work_dir),
    }
    return render("slurm/train.sbatch.j2", values)


def submit(config: RunConfig, *, work_dir: str | Path, after: str = "") -> str:
    """Write the configuration and `train.sbatch` into `RUN/launch` and hand the script to Slurm.

    Returns:
        The job's number.

    Raises:
        InputError: no Slurm here, or Slurm's refusal.
    """
    if shutil.which("sbatch") is None:
        raise InputError("sbatch is not on PATH; run this on a login node of the cluster, or add --dry-run to see the script")
    script = render_sbatch(config, work_dir=work_dir, after=after)
    path = frozen_config(config, work_dir)
    path.parent.mkdir(parents=True, exist_ok=True)
    log_dir(config, work_dir).mkdir(parents=True, exist_ok=True)
    save_config(config, path)
    save_config(config, path.parent / "config.yaml")  # the newest, for people and other commands
    temporary = path.parent / f".train.sbatch.{os.getpid()}"
    temporary.write_text(script, encoding="utf-8")
    os.replace(temporary, path.parent / "train.sbatch")
    done = subprocess.run(
        ["sbatch", "--parsable", str(path.parent / "train.sbatch")],
        env=_outside_of_jobs(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise InputError(f"sbatch refused {path.parent / 'train.sbatch'}: {reason}")
    return done.stdout.strip().split(";")[0]


def _outside_of_jobs(variables: Mapping[str, str]) -> dict[str, str]:
    """Without what an interactive job has set: memory and CPU masks of that one would be taken for those of the job's steps."""
    kept = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_CONF_SERVER", "SLURM_JWT")
    return {name: value for name, value in variables.items() if not name.startswith("SLURM_") or name in kept}
