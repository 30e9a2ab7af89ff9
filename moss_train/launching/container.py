"""How a command of a node runs in the image of `launcher.container`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.errors import InputError
from moss_train.config.schema import RunConfig
from moss_train.launching.folder import launch_dir

_PASSED = re.compile(
    r"NNODES|NODE_RANK|NPROC_PER_NODE|(MASTER|LOCAL)_\w+|RANK|WORLD_SIZE|GROUP_RANK|MAX_RESTARTS|MIN_NODES|TORCHRUN_ARGS|PYTHON|"
    r"OMP_NUM_THREADS|(CUDA|NCCL|GLOO|TORCH|UCX|WANDB|HF|AWS|MSC|SLURM|MOSS)_\w+|(https?|no)_proxy|(HTTPS?|NO)_PROXY"
)
"""Names of variables that training, or what it is made of, reads."""
_FIND_TORCHRUN = (
    'exec bash "$("${PYTHON:-python3}" -c '
    "'from moss_train.launching.folder import launch_dir; print(launch_dir())'"
    ')/torchrun.sh" "$@"'
)


def torchrun_command(config: RunConfig) -> list[str]:
    """What starts launch/torchrun.sh where the ranks run; the arguments of `moss train` follow it.

    Without a container it is the script beside this package. The image has its own package, maybe elsewhere, and the
    image's Python says where::

        ["bash", "/repo/launch/torchrun.sh"]
        ["bash", "-c", 'exec bash "$("${PYTHON:-python3}" -c ...)/torchrun.sh" "$@"', "torchrun.sh"]
    """
    if config.launcher.container.runtime == "none":
        return ["bash", str(launch_dir() / "torchrun.sh")]
    return ["bash", "-c", _FIND_TORCHRUN, "torchrun.sh"]


def wrap(
    command: Sequence[str], config: RunConfig, work_dir: str | Path, *, environment: Mapping[str, str] = os.environ
) -> list[str]:
    """The command as it is given to the system of a node.

    Args:
        work_dir: folder in which the command starts, inside and outside.
        environment: what the command is started with; docker passes on nothing by itself, so the names of it that
            training reads are handed over, with those of `launcher.env`. Values never stand on the command line.

    Unchanged without a container, and with pyxis, where srun starts the container (`srun_options`). Examples, with
    `launcher.container.image` moss.sif and moss-train, in the folder /work::

        apptainer exec --nv --bind /work:/work --pwd /work --env PYTHONNOUSERSITE=1 moss.sif COMMAND
        docker run --rm --init --ipc=host --network=host --ulimit memlock=-1 --ulimit stack=67108864 --gpus all
            -v /work:/work -w /work -e NCCL_DEBUG moss-train COMMAND

    Raises:
        InputError: two mounts for one place, or a path that the runtime cannot be told.
    """
    container, folder = config.launcher.container, Path(work_dir).resolve()
    if container.runtime in ("none", "pyxis"):
        return list(command)
    mounts, on_cpu = mounts_of(config, folder), config.device == "cpu"
    if container.runtime == "apptainer":
        binds = [word for mount in mounts for word in ("--bind", mount)]
        # Packages in the user's home, which Apptainer shows inside, would come before the image's.
        words = ["apptainer", "exec", *([] if on_cpu else ["--nv"]), *binds, "--pwd", str(folder), "--env", "PYTHONNOUSERSITE=1"]
        return [*words, container.image, *command]
    words = ["docker", "run", "--rm", "--init", "--ipc=host", "--network=host"]
    words += ["--ulimit", "memlock=-1", "--ulimit", "stack=67108864", *([] if on_cpu else ["--gpus", "all"])]
    words += [word for mount in mounts for word in ("-v", mount)]
    words += ["-w", str(folder)]
    words += [word for name in _names(config, environment) for word in ("-e", name)]
    return [*words, container.image, *command]


def srun_options(config: RunConfig, work_dir: str | Path) -> list[str]:
    """Options of srun that start its tasks in a container, with NVIDIA's plugin pyxis; none for other runtimes.

    Example, with `launcher.container.image=nvcr.io#team/moss:1` and a run folder outside the working folder::

        --container-image=nvcr.io#team/moss:1 --container-mounts=/work:/work,/shared/runs/pt2:/shared/runs/pt2
        --container-workdir=/work --container-env=OMP_NUM_THREADS,CUDA_DEVICE_MAX_CONNECTIONS

    Pyxis passes the job's environment on, but what the image sets itself wins over it; the names of `launcher.env` are the
    other way round.

    Raises:
        InputError: as `wrap`.
    """
    container, folder = config.launcher.container, Path(work_dir).resolve()
    if container.runtime != "pyxis":
        return []
    options = [
        f"--container-image={container.image}",
        f"--container-mounts={','.join(mounts_of(config, folder))}",
        f"--container-workdir={folder}",
    ]
    return options + ([f"--container-env={','.join(config.launcher.env)}"] if config.launcher.env else [])


def mounts_of(config: RunConfig, work_dir: Path) -> list[str]:
    """HOST:INSIDE of everything that the container sees: the working folder, the run folder, the cache of shards and
    `launcher.container.mounts`, each once. What lies in the working folder comes with it.

    Raises:
        InputError: as `wrap`.
    """
    own = [work_dir, (work_dir / config.run_dir).resolve()]
    if config.launcher.cache.folder:
        own.append(Path(config.launcher.cache.folder))
    found: dict[str, tuple[str, ...]] = {}  # place inside -> host's folder and mode
    for path in own:
        if not any(path.is_relative_to(other) for other in found):
            found[str(path)] = (str(path),)
    for mount in config.launcher.container.mounts:
        host, inside, *mode = mount.split(":") if ":" in mount else (mount, mount)
        if found.get(inside, (host,))[0] != host:
            raise InputError(
                f"launcher.container.mounts puts {host} at {inside}, where {found[inside][0]} is seen; choose another place"
            )
        found[inside] = (host, *mode)
    for inside, (host, *_) in found.items():
        if any(sign in path for sign in ",:" for path in (inside, host)):
            raise InputError(f"{host} cannot be seen in a container: its path has a comma or a colon; use another folder")
    return [":".join([host, inside, *mode]) for inside, (host, *mode) in found.items()]


def _names(config: RunConfig, environment: Mapping[str, str]) -> list[str]:
    """Variables that are handed over by name."""
    read = {name for name in environment if _PASSED.fullmatch(name)}
    return sorted(read | set(config.launcher.env))
