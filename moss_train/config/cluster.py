"""What a cluster adds to a launcher: Slurm, Kubernetes, containers, the check before a start, caches of shards."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from model.errors import InputError
from moss_train.config.checks import at_least, finite_seconds, one_of

RUNTIMES = ("none", "pyxis", "apptainer", "docker")
SLURM_GPUS = ("gpus-per-node", "gres", "none")
_SLURM_TIME = re.compile(r"\d+|\d+:\d\d(:\d\d)?|\d+-\d+(:\d\d){0,2}|UNLIMITED|INFINITE")


@dataclass(kw_only=True)
class PreflightConfig:
    """What every node is asked before training starts (`moss preflight`). A bound of 0 is not checked."""

    enabled: bool = False
    timeout_seconds: float = 300.0
    """A node that has not answered by then is bad."""
    max_clock_skew_seconds: float = 2.0
    """Largest difference between a node's clock and the middle of all."""
    min_allreduce_gbytes: float = 0.0
    """Least bus bandwidth of an all-reduce over all ranks, GB/s (10^9 bytes)."""
    allreduce_mib: float = 256.0
    """Size of that all-reduce."""
    min_disk_gib: float = 0.0
    """Least free space under the run folder, and under `launcher.cache.folder` where there is one."""
    min_memory_gib: float = 0.0
    """Least free memory of a node."""

    def __post_init__(self) -> None:
        finite_seconds("launcher.preflight.timeout_seconds", self.timeout_seconds)
        at_least("launcher.preflight.allreduce_mib", self.allreduce_mib, 0.001)
        for name in ("max_clock_skew_seconds", "min_allreduce_gbytes", "min_disk_gib", "min_memory_gib"):
            at_least(f"launcher.preflight.{name}", getattr(self, name), 0)


@dataclass(kw_only=True)
class CacheConfig:
    """Copies of the shards on each node's own disk, made before training starts (`moss data cache`)."""

    folder: str = ""
    """Folder on the node's own disk, such as /nvme/moss; empty reads the shards where they are."""
    max_gib: float = 0.0
    """Most that the copies may take; 0 leaves 5 % of the disk free."""
    processes: int = 8
    """Files copied at a time."""

    def __post_init__(self) -> None:
        at_least("launcher.cache.max_gib", self.max_gib, 0)
        at_least("launcher.cache.processes", self.processes, 1)
        if self.folder and not self.folder.startswith("/"):
            raise InputError(f"launcher.cache.folder is {self.folder!r}; give an absolute path on the node's own disk")


@dataclass(kw_only=True)
class ContainerConfig:
    """The image in which the processes of a node run; none by default: then a virtual environment."""

    runtime: str = "none"
    """none | pyxis | apptainer | docker (docker by `moss launch torchrun` only; Kubernetes takes the image alone)"""
    image: str = ""
    """Address or file of the image."""
    mounts: list[str] = field(default_factory=list)
    """Folders that it sees, each HOST:INSIDE or one path for both. The run folder and the working folder are always seen."""

    def __post_init__(self) -> None:
        one_of("launcher.container.runtime", self.runtime, RUNTIMES)
        if self.runtime != "none" and not self.image:
            raise InputError(
                f"launcher.container.runtime is {self.runtime} but launcher.container.image is empty; name the image"
            )
        for mount in self.mounts:
            if not all(part.startswith("/") for part in mount.split(":")[:2]):
                raise InputError(f"launcher.container.mounts has {mount!r}; write absolute paths as HOST:INSIDE")


@dataclass(kw_only=True)
class SlurmConfig:
    """Lines of the batch script, where an empty string leaves a line out, and what a job does when it ends."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    time: str = "24:00:00"
    """Wall-clock limit, HH:MM:SS or D-HH:MM:SS."""
    cpus_per_task: int = 16
    """CPU cores of each node's single task, which starts one process a GPU."""
    memory: str = "0"
    """Memory of a node; 0 takes all of it."""
    gpus: str = "gpus-per-node"
    """How GPUs are asked for: gpus-per-node | gres | none. None for CPU ranks, and where `extra` says it."""
    exclusive: bool = True
    constraint: str = ""
    exclude: str = ""
    """Nodes that the job never gets, as Slurm lists them."""
    requeue: bool = True
    """Go on by itself: after a preemption, a lost node, or near the time limit the job is queued again and continues from its
    newest checkpoint."""
    signal_seconds: int = 120
    """Seconds before the limit at which a checkpoint is asked for; 0 asks for none."""
    segments: int = 1
    """Elements of a job array that follow one another, each with the whole time limit: for clusters without requeueing."""
    max_restarts: int = 3
    """How often the job is queued again after training failed on it or a node did not pass the check; preemptions, drained nodes
    and time limits are not counted."""
    watch_nodes_seconds: float = 60.0
    """How often the job looks whether one of its nodes is being drained: it then saves and is queued again. 0 never looks."""
    setup: list[str] = field(default_factory=list)
    """Shell lines before the start, such as `module load cuda` or `source .venv/bin/activate`."""
    extra: list[str] = field(default_factory=list)
    """Further options of sbatch, each as it would follow `#SBATCH`."""
    srun: list[str] = field(default_factory=list)
    """Further options of srun, such as `--mpi=none` or `--network=...`."""

    def __post_init__(self) -> None:
        one_of("launcher.slurm.gpus", self.gpus, SLURM_GPUS)
        for name, least in (("cpus_per_task", 1), ("signal_seconds", 0), ("segments", 1), ("max_restarts", 0)):
            at_least(f"launcher.slurm.{name}", getattr(self, name), least)
        at_least("launcher.slurm.watch_nodes_seconds", self.watch_nodes_seconds, 0)
        if not _SLURM_TIME.fullmatch(self.time):
            raise InputError(f"launcher.slurm.time is {self.time!r}; write HH:MM:SS or D-HH:MM:SS")


@dataclass(kw_only=True)
class KubernetesConfig:
    """The manifest of `moss launch kubernetes`; the image is `launcher.container.image`."""

    namespace: str = "default"
    name: str = ""
    """Of the job; empty makes one from the stage and the run folder."""
    api: str = "jobset"
    """job | jobset | pytorchjob: what the cluster has. A plain job runs one node."""
    gpu_resource: str = "nvidia.com/gpu"
    """Name of a GPU among the resources; empty for CPU ranks."""
    resources: dict[str, str] = field(default_factory=dict)
    """Further resources of a pod, such as rdma/hca: "1"."""
    host_network: bool = False
    capabilities: list[str] = field(default_factory=list)
    """Such as IPC_LOCK, which RDMA needs."""
    labels: dict[str, str] = field(default_factory=dict)
    """Further labels, such as kueue.x-k8s.io/queue-name."""
    cpus: str = "96"
    memory: str = "800Gi"
    shared_memory: str = "64Gi"
    """Size of /dev/shm."""
    volumes: list[str] = field(default_factory=list)
    """Storage that the pods see: claim:NAME:/inside, host:/path:/inside, or empty:/inside for a disk of the pod."""
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: list[str] = field(default_factory=list)
    """Taints that are borne, as KEY or KEY=VALUE."""
    max_restarts: int = 3
    """How often the whole job is started again."""
    grace_seconds: int = 120
    """Between SIGTERM and SIGKILL: time for the last checkpoint."""
    service_account: str = ""
    secrets: list[str] = field(default_factory=list)
    """Secrets whose entries become environment variables, such as one with WANDB_API_KEY."""

    def __post_init__(self) -> None:
        one_of("launcher.kubernetes.api", self.api, ("job", "jobset", "pytorchjob"))
        for name, least in (("max_restarts", 0), ("grace_seconds", 1)):
            at_least(f"launcher.kubernetes.{name}", getattr(self, name), least)
