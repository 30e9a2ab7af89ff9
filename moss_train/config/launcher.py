"""How the processes of a run are started: the group `conf/launcher`."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.errors import InputError
from moss_train.config.checks import at_least, one_of
from moss_train.config.cluster import CacheConfig, ContainerConfig, KubernetesConfig, PreflightConfig, SlurmConfig

KINDS = ("local", "torchrun", "slurm", "kubernetes")


@dataclass(kw_only=True)
class LauncherConfig:
    """Processes, nodes and their environment."""

    kind: str = "local"
    """local | torchrun | slurm | kubernetes"""
    nodes: int = 1
    min_nodes: int = 0
    """The least nodes that the run may go on with when it is started again; 0 means `launcher.nodes`, no fewer."""
    nproc_per_node: int = 1
    """Processes on a node: its GPUs, or CPU ranks."""
    master_port: int = 29500
    elastic: bool = False
    """Let torchrun form the world anew, of `min_nodes` to `nodes` nodes, when a node is lost or comes; else they are fixed."""
    max_restarts: int = 0
    """How often torchrun starts the ranks again after one of them failed; training continues from its newest checkpoint."""
    gpu: str = ""
    """H100 | H200 | A100: `moss plan` holds the run against it before anything starts; empty checks the layout only."""
    python: str = ""
    """Interpreter with moss-train on the nodes, or in the container; empty takes that of the `moss` which launches."""
    log_dir: str = "logs"
    """Folder of the job's output files; relative paths belong to the run folder."""
    env: dict[str, str] = field(default_factory=dict)
    """Environment variables of every process."""
    preflight: PreflightConfig = field(default_factory=PreflightConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    container: ContainerConfig = field(default_factory=ContainerConfig)
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    kubernetes: KubernetesConfig = field(default_factory=KubernetesConfig)

    def __post_init__(self) -> None:
        one_of("launcher.kind", self.kind, KINDS)
        for name, least in (("nodes", 1), ("min_nodes", 0), ("nproc_per_node", 1), ("master_port", 1), ("max_restarts", 0)):
            at_least(f"launcher.{name}", getattr(self, name), least)
        if self.min_nodes > self.nodes:
            raise InputError(f"launcher.min_nodes is {self.min_nodes}, more than launcher.nodes, which is {self.nodes}; lower it")
        if self.master_port > 65535:
            raise InputError(f"launcher.master_port is {self.master_port}; it must be at most 65535")
        if self.gpu:
            one_of("launcher.gpu", self.gpu, ("H100", "H200", "A100"))

    @property
    def least_nodes(self) -> int:
        """The least nodes that the run may go on with."""
        return self.min_nodes or self.nodes
