"""How the processes of a run are started: the group `conf/launcher`."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.errors import InputError

KINDS = ("local", "torchrun", "slurm")


@dataclass(kw_only=True)
class SlurmConfig:
    """Lines of the batch script; an empty string leaves a line out."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = "24:00:00"
    """Wall-clock limit, HH:MM:SS or D-HH:MM:SS."""
    cpus_per_task: int = 16
    """CPU cores of each node's single task, which starts one process a GPU."""
    memory: str = "0"
    """Memory of a node; 0 takes all of it."""
    exclusive: bool = True
    constraint: str = ""
    requeue: bool = True
    """Let Slurm start the job again after a preemption or a lost node; training resumes from its newest checkpoint."""
    signal_seconds: int = 120
    """Seconds before the limit at which SIGTERM asks for a checkpoint; 0 sends none."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the start, such as `module load cuda` or `source .venv/bin/activate`."""
    extra: list[str] = field(default_factory=list)
    """Further options of sbatch, each as it would follow `#SBATCH`."""


@dataclass(kw_only=True)
class LauncherConfig:
    """Processes, nodes and their environment."""

    kind: str = "local"
    """local | torchrun | slurm"""
    nodes: int = 1
    nproc_per_node: int = 1
    """Processes on a node: its GPUs, or CPU ranks."""
    master_port: int = 29500
    log_dir: str = "logs"
    """Folder of the job's output files; relative paths belong to the run folder."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of every process."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"launcher.kind is {self.kind!r}; use one of {', '.join(KINDS)}")
        for name, least in (("nodes", 1), ("nproc_per_node", 1), ("master_port", 1)):
            if getattr(self, name) < least:
                raise InputError(f"launcher.{name} is {getattr(self, name)}; it must be at least {least}")
