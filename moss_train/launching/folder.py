"""Where the scripts and templates lie, and where a launched run keeps its own files."""

from __future__ import annotations

from pathlib import Path

from model.errors import InputError
from moss_train.config.schema import RunConfig


def launch_dir() -> Path:
    """The folder with torchrun.sh, slurm/ and kubernetes/: the one in the wheel, else `launch/` of the checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "_launch", package.parent / "launch"):
        if (folder / "torchrun.sh").is_file():
            return folder
    raise InputError(f"torchrun.sh is not beside {package}; install moss-train again")


def log_dir(config: RunConfig, work_dir: str | Path) -> Path:
    """Absolute folder of a job's output files."""
    return (Path(work_dir) / config.run_dir / config.launcher.log_dir).resolve()


def job_dir(run_dir: str | Path) -> Path:
    """`RUN/launch`: the frozen configuration, the batch script, what the check of the nodes found, nodes that are avoided."""
    return Path(run_dir) / "launch"
